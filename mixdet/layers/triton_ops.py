"""The mixed convolution by Triton kernels, for CUDA: ``torch.ops.mixdet.mixconv2d_triton``.

The operator and its two derivatives take what those of :mod:`mixdet.layers.native` take. Each group is one launch that
reads its slice of the channels and writes into its slice of the result: nothing is split, padded or concatenated.

With ``TRITON_INTERPRET=1`` in the environment when Triton is imported the kernels run in its interpreter, on CPU
tensors too. They have been tested in it alone: compiled for NVIDIA GPUs, but never run or measured on one.
"""

import functools
import logging
import os
from collections.abc import Sequence
from typing import NamedTuple, Optional

import torch
from torch import Tensor

from mixdet.layers import schema
from mixdet.layers.padding import same_padding

ACTIVATIONS = ('none', 'relu', 'relu6')
# elements in a program's block, and how many programs share out the sums of the weight gradient; not tuned on a GPU
BLOCK, GRADIENT_BLOCK, GRADIENT_PROGRAMS = 1024, 4096, 2048
logger = logging.getLogger(__name__)


@functools.cache
def load() -> bool:
    """Whether the operator can be used; registers it. Why it cannot is said in one line, once; it never raises."""
    try:
        if not hasattr(torch.library, 'register_autograd'):
            raise ImportError(f'it needs PyTorch 2.4, this is {torch.__version__}')
        from mixdet.layers import triton_kernels
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().split('\n')[0]
        logger.warning(
            'MixConv runs group by group, its Triton operator is not available: %s (pip install triton)', reason
        )
        return False
    _register(['CUDA', 'CPU'] if triton_kernels.INTERPRETED else ['CUDA'])
    return True


def available(device: str) -> bool:
    """Whether the operator runs on tensors of ``device`` ('cpu', 'cuda'); torch.compile takes the answer as it is."""
    if device == 'cpu' and os.environ.get('TRITON_INTERPRET') != '1':
        return False
    return device in ('cpu', 'cuda') and load() and (device == 'cuda' or _kernels().INTERPRETED)


available._dynamo_marked_constant = True  # as in native.py


def _kernels():
    from mixdet.layers import triton_kernels

    return triton_kernels


class Group(NamedTuple):
    """Channels that share a kernel; pairs are (height, width), ``before`` the padding in front of the first pixel."""

    first: int
    channels: int
    kernel: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]

    def of(self, x: Tensor) -> Tensor:
        """Its slice of the channels of ``x``."""
        return x.narrow(1, self.first, self.channels)


def _geometry(x: Tensor, size, kernel, stride, padding, dilation, same) -> tuple[list[Group], tuple[int, int]]:
    """The groups and the output's (height, width) for an input of ``size``.

    ``x`` is the input or the output's gradient. Raises ValueError or TypeError for what cannot be convolved.
    """
    count = len(kernel) // 3
    if x.dim() != 4 or not x.is_floating_point():
        raise TypeError(f'mixconv2d: expected a floating-point tensor (N, C, H, W), got {tuple(x.shape)} of {x.dtype}')
    if len(stride) != 2 or min(stride) < 1 or min(dilation, default=1) < 1:
        raise ValueError('mixconv2d: stride must be 2 positive numbers, dilation must be positive')
    if len(padding) != 2 * count or len(dilation) != 2 * count:
        raise ValueError(f'mixconv2d: padding and dilation must have 2 numbers for each of {count} groups')
    groups, outputs, channels = [], set(), 0
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
    """Kernels take addresses on trust: raise unless all tensors are of one type and device, and small enough."""
    if any(other.dtype != x.dtype or other.device != x.device for other in others):
        kinds = sorted({f'{tensor.dtype} on {tensor.device}' for tensor in (x, *others)})
        raise TypeError(f'mixconv2d: all tensors must be of one type and device, got {", ".join(kinds)}')
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    for tensor in (x, *others):
        reach = sum((length - 1) * step for length, step in zip(tensor.shape[1:], tensor.stride()[1:]))
        if max(reach, pixels) >= 2**31:
            raise ValueError('mixconv2d: 2^31 elements of one image, or pixels of all, are more than it can count')


def _kernel_shapes(weight: Sequence[Tensor]) -> list[int]:
    if any(w.dim() != 4 or w.shape[1] != 1 for w in weight):
        raise ValueError('mixconv2d: weights must have the shape (channels, 1, kernel height, kernel width)')
    return [size for w in weight for size in (w.shape[0], w.shape[2], w.shape[3])]


def _forward(input, weight, bias, stride, padding, dilation, same, activation):
    size = input.shape[2:]
    groups, output = _geometry(input, size, _kernel_shapes(weight), stride, padding, dilation, same)
    if bias is not None and bias.shape != input.shape[1:2]:
        raise ValueError('mixconv2d: bias must have one value for each channel')
    if activation not in ACTIVATIONS:
        raise ValueError(f'mixconv2d: activation {activation!r}: must be one of {ACTIVATIONS}')
    shape = (*input.shape[:2], *output)
    out = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=schema.result_layout(input))
    _check_alike(input, out, *weight, *([] if bias is None else [bias]))
    for group, taps in zip(groups, weight):
        part = None if bias is None else bias.narrow(0, group.first, group.channels)
        _convolve(group, group.of(input), taps, group.of(out), stride, bias=part, activation=activation)
    return out


def _input_grad(grad, weight, size, stride, padding, dilation, same):
    groups, output = _geometry(grad, size, _kernel_shapes(weight), stride, padding, dilation, same)
    _check_output(grad, output)
    shape = (*grad.shape[:2], *size)
    result = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=schema.result_layout(grad))
    _check_alike(grad, result, *weight)
    for group, taps in zip(groups, weight):
        _convolve(group, group.of(grad), taps, group.of(result), stride, transposed=True)
    return result


def _weight_grad(grad, input, kernel, stride, padding, dilation, same):
    groups, output = _geometry(input, input.shape[2:], kernel, stride, padding, dilation, same)
    _check_output(grad, output, input)
    _check_alike(input, grad)
    return [_weight_gradient(group, group.of(grad), group.of(input), stride) for group in groups]


def _check_output(grad: Tensor, output: tuple[int, int], input: Optional[Tensor] = None) -> None:
    shape = (*(grad if input is None else input).shape[:2], *output)
    if grad.shape != shape:
        raise ValueError(f'mixconv2d: the gradient has the shape {tuple(grad.shape)}, the output {shape}')


def _convolve(group, src, weight, out, stride, bias=None, activation='none', transposed=False) -> None:
    """Launch one group; ``src`` and ``out`` are its slices."""
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


def _weight_gradient(group: Group, grad: Tensor, src: Tensor, stride: Sequence[int]) -> Tensor:
    """Launch one group: programs add up shares of the pixels, PyTorch adds up the shares."""
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
    """How many pixels and channels of ``x`` a program takes: as many as lie side by side, then of the others."""
    channels = min(_power_of_2(x.shape[1]), 32, elements) if x.stride(1) == 1 else 1
    pixels = min(_power_of_2(pixels), elements // channels)
    return pixels, min(_power_of_2(x.shape[1]), elements // pixels)


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_2(x: int) -> int:
    """The next one."""
    return 1 << (x - 1).bit_length()


def _sum_type(x: Tensor):
    import triton.language as tl

    return tl.float64 if x.dtype == torch.float64 else tl.float32


# The derivatives: each operator is linear in each of its two tensors, so that the three are one another's.


def _save_forward(ctx, inputs, output) -> None:
    input, weight, _, *options, activation = inputs
    if activation != 'none':
        raise RuntimeError('mixconv2d: an activation inside the operator has no gradient; apply it to the result')
    ctx.save_for_backward(input, *weight)
    ctx.options = options


def _forward_backward(ctx, grad):
    input, *weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    ops, options = torch.ops.mixdet, ctx.options
    input_grad = ops.mixconv2d_triton_input_grad(grad, weight, input.shape[2:], *options) if wanted[0] else None
    weight_grad = [None] * len(weight)
    if any(wanted[1]):
        weight_grad = ops.mixconv2d_triton_weight_grad(grad, input, _kernel_shapes(weight), *options)
    return input_grad, weight_grad, grad.sum((0, 2, 3)) if wanted[2] else None, *[None] * 5


def _save_input_grad(ctx, inputs, output) -> None:
    grad, weight, _, *ctx.options = inputs
    ctx.save_for_backward(grad, *weight)


def _input_grad_backward(ctx, grad):
    first, *weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    ops, options = torch.ops.mixdet, ctx.options
    first_grad = ops.mixconv2d_triton(grad, weight, None, *options, 'none') if wanted[0] else None
    weight_grad = [None] * len(weight)
    if any(wanted[1]):
        weight_grad = ops.mixconv2d_triton_weight_grad(first, grad, _kernel_shapes(weight), *options)
    return first_grad, weight_grad, *[None] * 5


def _save_weight_grad(ctx, inputs, output) -> None:
    grad, input, ctx.kernel, *ctx.options = inputs
    ctx.save_for_backward(grad, input)


def _weight_grad_backward(ctx, grads):
    grad, input = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    ops, options = torch.ops.mixdet, ctx.options
    grad_grad = ops.mixconv2d_triton(input, grads, None, *options, 'none') if wanted[0] else None
    input_grad = ops.mixconv2d_triton_input_grad(grad, grads, input.shape[2:], *options) if wanted[1] else None
    return grad_grad, input_grad, *[None] * 5


def _register(keys: Sequence[str]) -> None:
    global _LIBRARY  # what it registers goes when it goes
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
    schema.register('mixconv2d_triton', _LIBRARY, ['cpu', 'cuda'])
