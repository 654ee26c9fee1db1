"""The mixed convolution by Triton kernels, for CUDA: ``torch.ops.mixdet.mixconv2d_triton``.

The operator and its two derivatives have the arguments of those of :mod:`mixdet.layers.native`. Each group is one
launch, which reads its slice of the channels and writes its slice of the result: no copy splits, pads or concatenates.

If ``TRITON_INTERPRET=1`` is set when Triton is imported, the kernels run in its interpreter, on CPU tensors too. On an
NVIDIA H100 they pass the same tests; they have not been tuned for it (docs/speed.md).
"""

import functools
import logging
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor

from mixdet.compat.stack import is_at_least
from mixdet.layers import registration
from mixdet.layers.padding import same_padding

Ints = Sequence[int]
Gradients = tuple[Any, ...]  # one for each argument of an operator; None for arguments without one

ACTIVATIONS = ('none', 'relu', 'relu6')
# elements of a program's block, and the number of programs among which the sums of a weight gradient are divided; not
# tuned on a GPU
BLOCK, GRADIENT_BLOCK, GRADIENT_PROGRAMS = 1024, 4096, 2048
logger = logging.getLogger(__name__)
_LIBRARY: Optional[torch.library.Library] = None  # its registrations end with it


@functools.cache
def load() -> bool:
    """Register the operator and return whether that worked; if not, one line, once, gives the reason."""
    try:
        if not is_at_least(torch.__version__, '2.6'):  # with Triton 3.0 of 2.4 the interpreter writes no results
            raise ImportError(f'PyTorch 2.6 is needed, this is {torch.__version__}')
        from mixdet.layers import triton_kernels
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().split('\n')[0]
        logger.warning(
            'The Triton MixConv operator is not available, MixConv runs group by group: %s (pip install triton)', reason
        )
        return False
    _register(['CUDA', 'CPU'] if triton_kernels.INTERPRETED else ['CUDA'])
    return True


@registration.constant_when_compiled
def available(device: str) -> bool:
    """Whether the operator runs on tensors of ``device`` ('cpu', 'cuda'); a constant to torch.compile."""
    if device == 'cpu' and os.environ.get('TRITON_INTERPRET') != '1':
        return False
    return device in ('cpu', 'cuda') and load() and (device == 'cuda' or _kernels().INTERPRETED)


def _kernels() -> ModuleType:
    from mixdet.layers import triton_kernels

    return triton_kernels


class Group(NamedTuple):
    """Channels with one kernel; pairs are (height, width), ``before`` pads before the first row and column."""

    first: int
    channels: int
    kernel: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]

    def of(self, x: Tensor) -> Tensor:
        """The group's slice of the channels of ``x``."""
        return x.narrow(1, self.first, self.channels)


def _geometry(
    x: Tensor, size: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, same: bool
) -> tuple[list[Group], tuple[int, ...]]:
    """The groups, and (height, width) of the output, for an input of ``size`` px.

    ``x`` is the input or the gradient of the output. Raises ValueError or TypeError if the arguments are not possible.
    """
    count = len(kernel) // 3
    if x.dim() != 4 or not x.is_floating_point():
        raise TypeError(f'mixconv2d: expected a floating-point tensor (N, C, H, W), got {tuple(x.shape)} of {x.dtype}')
    if len(stride) != 2 or min(stride) < 1 or min(dilation, default=1) < 1:
        raise ValueError('mixconv2d: stride must be 2 positive numbers, dilation must be positive')
    if len(padding) != 2 * count or len(dilation) != 2 * count:
        raise ValueError(f'mixconv2d: padding and dilation must have 2 numbers for each of {count} groups')
    groups: list[Group] = []
    outputs: set[tuple[int, ...]] = set()
    channels = 0
    for i in range(count):
        taps, steps, before = kernel[3 * i + 1 : 3 * i + 3], dilation[2 * i : 2 * i + 2], padding[2 * i : 2 * i + 2]
        if same:
            outputs.add(tuple(-(-pixels // step) for pixels, step in zip(size, stride)))
            before = [same_padding(*axis)[0] for axis in zip(size, taps, stride, steps)]
        else:
            spans = (p + 2 * b - d * (k - 1) for p, b, d, k in zip(size, before, steps, taps))
            outputs.add(tuple(-(-span // step) for span, step in zip(spans, stride)))
        groups.append(Group(channels, kernel[3 * i], tuple(taps), tuple(steps), tuple(before)))
        channels += kernel[3 * i]
    if channels != x.shape[1]:
        raise ValueError(f'mixconv2d: the tensor has {x.shape[1]} channels, the weights {channels}')
    if len(outputs) != 1:
        raise ValueError('mixconv2d: groups give outputs of different sizes')
    output = outputs.pop()
    if min(output) < 1:
        raise ValueError(f'mixconv2d: an input of {size[0]} x {size[1]} pixels is smaller than a kernel')
    return groups, output


def _check_alike(x: Tensor, *others: Tensor) -> None:
    """Raise unless all tensors have one type and device and are small enough, as kernels do not check addresses."""
    if any(other.dtype != x.dtype or other.device != x.device for other in others):
        found = sorted({f'{tensor.dtype} on {tensor.device}' for tensor in (x, *others)})
        raise TypeError(f'mixconv2d: all tensors must be of one type and device, got {", ".join(found)}')
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    for tensor in (x, *others):
        reach = sum((length - 1) * step for length, step in zip(tensor.shape[1:], tensor.stride()[1:]))
        if max(reach, pixels) >= 2**31:
            raise ValueError('mixconv2d: an image must have fewer than 2^31 elements, a batch fewer than 2^31 pixels')


def _kernel_shapes(weight: Sequence[Tensor]) -> list[int]:
    if any(w.dim() != 4 or w.shape[1] != 1 for w in weight):
        raise ValueError('mixconv2d: weights must have the shape (channels, 1, kernel height, kernel width)')
    return [size for w in weight for size in (w.shape[0], w.shape[2], w.shape[3])]


def _forward(
    input: Tensor,
    weight: Sequence[Tensor],
    bias: Optional[Tensor],
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    same: bool,
    activation: str,
) -> Tensor:
    size = input.shape[2:]
    groups, output = _geometry(input, size, _kernel_shapes(weight), stride, padding, dilation, same)
    if bias is not None and bias.shape != input.shape[1:2]:
        raise ValueError('mixconv2d: bias must have one value for each channel')
    if activation not in ACTIVATIONS:
        raise ValueError(f'mixconv2d: activation {activation!r}: must be one of {ACTIVATIONS}')
    shape = (*input.shape[:2], *output)
    out = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=registration.result_layout(input))
    _check_alike(input, out, *weight, *([] if bias is None else [bias]))
    for group, taps in zip(groups, weight):
        part = None if bias is None else bias.narrow(0, group.first, group.channels)
        _convolve(group, group.of(input), taps, group.of(out), stride, bias=part, activation=activation)
    return out


def _input_grad(
    grad: Tensor, weight: Sequence[Tensor], size: Ints, stride: Ints, padding: Ints, dilation: Ints, same: bool
) -> Tensor:
    groups, output = _geometry(grad, size, _kernel_shapes(weight), stride, padding, dilation, same)
    _check_output(grad, output)
    shape = (*grad.shape[:2], *size)
    result = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=registration.result_layout(grad))
    _check_alike(grad, result, *weight)
    for group, taps in zip(groups, weight):
        _convolve(group, group.of(grad), taps, group.of(result), stride, transposed=True)
    return result


def _weight_grad(
    grad: Tensor, input: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, same: bool
) -> list[Tensor]:
    groups, output = _geometry(input, input.shape[2:], kernel, stride, padding, dilation, same)
    _check_output(grad, output, input)
    _check_alike(input, grad)
    return [_weight_gradient(group, group.of(grad), group.of(input), stride) for group in groups]


def _check_output(grad: Tensor, output: tuple[int, ...], input: Optional[Tensor] = None) -> None:
    shape = (*(grad if input is None else input).shape[:2], *output)
    if grad.shape != shape:
        raise ValueError(f'mixconv2d: the gradient has the shape {tuple(grad.shape)}, the output {shape}')


def _convolve(
    group: Group,
    src: Tensor,
    weight: Tensor,
    out: Tensor,
    stride: Ints,
    bias: Optional[Tensor] = None,
    activation: str = 'none',
    transposed: bool = False,
) -> None:
    """Launch the kernel for one group; ``src`` and ``out`` are the group's slices."""
    if not out.numel():
        return
    kernels = _kernels()
    images, channels, height, width = out.shape
    block_p, block_c = _blocks(out, height * width, BLOCK)
    grid = (_cdiv(height * width, block_p), _cdiv(channels, block_c), images)
    with torch.cuda.device_of(out):  # Triton launches on the current device
        kernels.convolve[grid](
            src, weight.contiguous(), bias if bias is None else bias.contiguous(), out,
            channels, *src.shape[2:], height, width, *group.before, *src.stride(), *out.stride(),
            *group.kernel, *stride, *group.dilation,
            TRANSPOSED=transposed, BIAS=bias is not None, ACTIVATION=activation, SUM=_sum_type(out),
            BLOCK_P=block_p, BLOCK_C=block_c,
        )  # fmt: skip


def _weight_gradient(group: Group, grad: Tensor, src: Tensor, stride: Ints) -> Tensor:
    """Launch the kernel for one group: each program sums over a share of the pixels, PyTorch sums over the shares."""
    kernels = _kernels()
    channels, (height, width) = grad.shape[1], group.kernel
    pixels = grad.numel() // channels
    if not pixels:
        return src.new_zeros(channels, 1, height, width)
    block_t = _power_of_2(height * width)
    block_p, block_c = _blocks(src, pixels, max(GRADIENT_BLOCK // block_t, 1))
    blocks = _cdiv(pixels, block_p)
    share = _cdiv(blocks, max(GRADIENT_PROGRAMS // _cdiv(channels, block_c), 1)) * block_p
    shares = _cdiv(pixels, share)
    dtype = torch.float64 if src.dtype == torch.float64 else torch.float32
    partial = torch.empty(shares, channels, height * width, dtype=dtype, device=src.device)
    with torch.cuda.device_of(src):
        kernels.weight_gradient[(_cdiv(channels, block_c), shares)](
            grad, src, partial,
            channels, *src.shape[2:], *grad.shape[2:], *group.before, pixels, share, *grad.stride(), *src.stride(),
            *group.kernel, *stride, *group.dilation,
            SUM=_sum_type(src), BLOCK_T=block_t, BLOCK_P=block_p, BLOCK_C=block_c,
        )  # fmt: skip
    return partial.sum(0).to(src.dtype).view(channels, 1, height, width)


def _blocks(x: Tensor, pixels: int, elements: int) -> tuple[int, int]:
    """How many pixels and channels of ``x`` a program's block has: first of those contiguous in memory, then others."""
    channels = min(_power_of_2(x.shape[1]), 32, elements) if x.stride(1) == 1 else 1
    pixels = min(_power_of_2(pixels), elements // channels)
    return pixels, min(_power_of_2(x.shape[1]), elements // pixels)


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_2(x: int) -> int:
    """The smallest power of 2 that is at least ``x``."""
    return 1 << (x - 1).bit_length()


def _sum_type(x: Tensor) -> Any:
    import triton.language as tl

    return tl.float64 if x.dtype == torch.float64 else tl.float32


# Autograd: every operator is linear in each of its two tensors, so the three are one another's derivatives.


def _save_forward(ctx: Any, inputs: tuple, output: Tensor) -> None:
    input, weight, _, *options, activation = inputs
    if activation != 'none':
        raise RuntimeError('mixconv2d: an activation inside the operator has no gradient; apply it to the result')
    ctx.save_for_backward(input, *weight)
    ctx.options = options


def _forward_backward(ctx: Any, grad: Tensor) -> Gradients:
    input, *weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    ops, options = torch.ops.mixdet, ctx.options
    input_grad = ops.mixconv2d_triton_input_grad(grad, weight, input.shape[2:], *options) if wanted[0] else None
    weight_grad = [None] * len(weight)
    if any(wanted[1]):
        weight_grad = ops.mixconv2d_triton_weight_grad(grad, input, _kernel_shapes(weight), *options)
    return input_grad, weight_grad, grad.sum((0, 2, 3)) if wanted[2] else None, *[None] * 5


def _save_input_grad(ctx: Any, inputs: tuple, output: Tensor) -> None:
    grad, weight, _, *ctx.options = inputs
    ctx.save_for_backward(grad, *weight)


def _input_grad_backward(ctx: Any, grad: Tensor) -> Gradients:
    first, *weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    ops, options = torch.ops.mixdet, ctx.options
    first_grad = ops.mixconv2d_triton(grad, weight, None, *options, 'none') if wanted[0] else None
    weight_grad = [None] * len(weight)
    if any(wanted[1]):
        weight_grad = ops.mixconv2d_triton_weight_grad(first, grad, _kernel_shapes(weight), *options)
    return first_grad, weight_grad, *[None] * 5


def _save_weight_grad(ctx: Any, inputs: tuple, output: list[Tensor]) -> None:
    grad, input, ctx.kernel, *ctx.options = inputs
    ctx.save_for_backward(grad, input)


def _weight_grad_backward(ctx: Any, grads: list[Tensor]) -> Gradients:
    grad, input = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    ops, options = torch.ops.mixdet, ctx.options
    grad_grad = ops.mixconv2d_triton(input, grads, None, *options, 'none') if wanted[0] else None
    input_grad = ops.mixconv2d_triton_input_grad(grad, grads, input.shape[2:], *options) if wanted[1] else None
    return grad_grad, input_grad, *[None] * 5


def _register(keys: Sequence[str]) -> None:
    global _LIBRARY
    _LIBRARY = torch.library.Library('mixdet', 'FRAGMENT')
    options = 'int[] stride, int[] padding, int[] dilation, bool same'
    for name, arguments, result, run, save, backward in (
        ('', f'Tensor input, Tensor[] weight, Tensor? bias, {options}, str activation', 'Tensor',
         _forward, _save_forward, _forward_backward),
        ('_input_grad', f'Tensor grad, Tensor[] weight, SymInt[] size, {options}', 'Tensor',
         _input_grad, _save_input_grad, _input_grad_backward),
        ('_weight_grad', f'Tensor grad, Tensor input, int[] kernel, {options}', 'Tensor[]',
         _weight_grad, _save_weight_grad, _weight_grad_backward),
    ):  # fmt: skip
        name = f'mixconv2d_triton{name}'
        _LIBRARY.define(f'{name}({arguments}) -> {result}')
        for key in keys:
            _LIBRARY.impl(name, run, key)
        torch.library.register_autograd(f'mixdet::{name}', backward, setup_context=save, lib=_LIBRARY)
    registration.register('mixconv2d_triton', _LIBRARY, ['cpu', 'cuda'])
