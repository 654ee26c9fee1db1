"""What the operators of the mixed convolution share, in C++ and in Triton: shapes for torch.compile, and autocast.

An operator ``NAME`` has the two derivatives ``NAME_input_grad`` and ``NAME_weight_grad``; ``csrc/mixconv.cpp`` says
what they take.
"""

from collections.abc import Callable, Sequence
from typing import Optional

import torch
from torch import Tensor


def register(name: str, library: torch.library.Library, devices: Sequence[str]) -> None:
    """Give the operator ``mixdet::NAME`` and its derivatives their shapes, and the operator autocast on ``devices``."""
    register_fake = getattr(torch.library, 'register_fake', None) or getattr(torch.library, 'impl_abstract', None)
    if register_fake is not None:
        register_fake(f'mixdet::{name}')(_forward)
        register_fake(f'mixdet::{name}_input_grad')(_input_grad)
        register_fake(f'mixdet::{name}_weight_grad')(_weight_grad)
    for device in devices:
        library.impl(name, _autocast(name, device), f'Autocast{device.upper()}')


def result_layout(x: Tensor) -> torch.memory_format:
    """Memory format of what is computed from ``x``."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def _forward(input, weight, bias, stride, padding, dilation, same, activation):
    size = []
    for axis in (0, 1):
        pixels = input.shape[2 + axis]
        if not same:
            pixels = pixels + 2 * padding[axis] - dilation[axis] * (weight[0].shape[2 + axis] - 1)
        size.append((pixels + stride[axis] - 1) // stride[axis])
    shape = (*input.shape[:2], *size)
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=result_layout(input))


def _input_grad(grad, weight, size, stride, padding, dilation, same):
    shape = (*grad.shape[:2], *size)
    return torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=result_layout(grad))


def _weight_grad(grad, input, kernel, stride, padding, dilation, same):
    return [input.new_empty((kernel[i], 1, *kernel[i + 1 : i + 3])) for i in range(0, len(kernel), 3)]


def _autocast(name: str, device: str) -> Callable[..., Tensor]:
    def run(input, weight, bias, *options):
        if hasattr(torch, 'get_autocast_dtype'):
            dtype = torch.get_autocast_dtype(device)
        else:
            dtype = torch.get_autocast_cpu_dtype() if device == 'cpu' else torch.get_autocast_gpu_dtype()

        def cast(x: Optional[Tensor]) -> Optional[Tensor]:
            return x.to(dtype) if x is not None and x.is_floating_point() and x.dtype != torch.float64 else x

        with torch.autocast(device, enabled=False):
            return getattr(torch.ops.mixdet, name)(cast(input), [cast(w) for w in weight], cast(bias), *options)

    return run
