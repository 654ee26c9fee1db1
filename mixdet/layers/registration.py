"""How the C++ and the Triton operator of the mixed convolution are registered for torch.compile and autocast.

Each operator ``NAME`` has two derivatives, ``NAME_input_grad`` and ``NAME_weight_grad``; ``csrc/mixconv.cpp`` has the
signatures.
"""

from collections.abc import Callable, Sequence
from typing import Any, Optional, TypeVar

import torch
from torch import Tensor

Function = TypeVar('Function', bound=Callable[..., Any])


def constant_when_compiled(function: Function) -> Function:
    """Decorator: torch.compile calls ``function`` while it traces and takes the result as a constant.

    The same as ``torch.compiler.assume_constant_result``, which takes most of a second as it imports torch._dynamo.
    """
    function.__dict__['_dynamo_marked_constant'] = True
    return function


def register(name: str, library: torch.library.Library, devices: Sequence[str]) -> None:
    """Tell PyTorch the result shapes of the operator ``mixdet::NAME`` and its derivatives, and how to autocast it.

    Args:
        name: NAME of the operator.
        library: keeps the registration of autocast alive.
        devices: device types to autocast on, 'cpu' or 'cuda'.
    """
    register_fake = getattr(torch.library, 'register_fake', None) or getattr(torch.library, 'impl_abstract', None)
    if register_fake is not None:
        register_fake(f'mixdet::{name}')(_forward)
        register_fake(f'mixdet::{name}_input_grad')(_input_grad)
        register_fake(f'mixdet::{name}_weight_grad')(_weight_grad)
    for device in devices:
        library.impl(name, _autocast(name, device), f'Autocast{device.upper()}')


def result_layout(x: Tensor) -> torch.memory_format:
    """Memory format of results computed from ``x``."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def _forward(
    input: Tensor,
    weight: Sequence[Tensor],
    bias: Optional[Tensor],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    same: bool,
    activation: str,
) -> Tensor:
    size = []
    for axis in (0, 1):
        pixels = input.shape[2 + axis]
        if not same:
            pixels = pixels + 2 * padding[axis] - dilation[axis] * (weight[0].shape[2 + axis] - 1)
        size.append((pixels + stride[axis] - 1) // stride[axis])
    shape = (*input.shape[:2], *size)
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=result_layout(input))


def _input_grad(grad: Tensor, weight: Sequence[Tensor], size: Sequence[int], *options: Any) -> Tensor:
    shape = (*grad.shape[:2], *size)
    return torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=result_layout(grad))


def _weight_grad(grad: Tensor, input: Tensor, kernel: Sequence[int], *options: Any) -> list[Tensor]:
    return [input.new_empty((kernel[i], 1, *kernel[i + 1 : i + 3])) for i in range(0, len(kernel), 3)]


def _autocast(name: str, device: str) -> Callable[..., Tensor]:
    def run(input: Tensor, weight: Sequence[Tensor], bias: Optional[Tensor], *options: Any) -> Tensor:
        if hasattr(torch, 'get_autocast_dtype'):
            dtype = torch.get_autocast_dtype(device)
        else:
            dtype = torch.get_autocast_cpu_dtype() if device == 'cpu' else torch.get_autocast_gpu_dtype()

        def cast(x: Tensor) -> Tensor:
            return x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x

        with torch.autocast(device, enabled=False):
            return getattr(torch.ops.mixdet, name)(
                cast(input), [cast(w) for w in weight], None if bias is None else cast(bias), *options
            )

    return run
