"""The implementations of a mixed convolution: the same result and gradients from the same parameters.

``split``: PyTorch's convolution group by group, then a concatenation; the reference, works everywhere.
``padded``: one convolution, with every kernel padded with zeros to the size of the largest.
``native``: one C++ operator for the CPU, see :mod:`mixdet.layers.native`.
``triton``: one operator of Triton kernels for CUDA, see :mod:`mixdet.layers.triton_ops`.
``auto``: the fastest according to our measurements, see :func:`choose`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy, wrap

from mixdet.compat.stack import is_at_least
from mixdet.layers import native, triton_ops
from mixdet.layers.padding import pad_same, same_padding

if TYPE_CHECKING:
    from mixdet.layers.mixconv import GroupConv, MixConv2d

ACTIVATIONS = {'relu': nn.ReLU, 'relu6': nn.ReLU6}  # activations that the operators can apply to their result
OPERATORS = {'native': 'mixconv2d', 'triton': 'mixconv2d_triton'}
IMPLS = ('auto', 'split', 'padded', *OPERATORS)
# in torch.nn.modules.module: hooks on all modules, before and after a call and its gradients
HOOKS_ON_ALL = (
    '_global_forward_pre_hooks',
    '_global_forward_hooks',
    '_global_backward_pre_hooks',
    '_global_backward_hooks',
)
is_compiling = getattr(torch.compiler, 'is_compiling', lambda: False)  # missing in PyTorch 2.1
_in_functorch = torch._C._are_functorch_transforms_active
wrap('pad_same')  # torch.fx: one node, as the padding follows from sizes that are not known while tracing
# For the gradients of depthwise and of dilated convolutions in channels_last, oneDNN 3.1 in PyTorch 2.1 runs a plain
# loop, 5 to 50 times slower than in NCHW; 3.4 in PyTorch 2.4 does not.
SLOW_GRADIENTS = not is_at_least(torch.__version__, '2.4')
# the assembled weights of layers; not their attributes, so that layers are copied and pickled without them
_ASSEMBLED: WeakKeyDictionary = WeakKeyDictionary()


def check_impl(impl: str) -> str:
    """Return ``impl``, or raise ValueError if there is no such implementation."""
    if impl not in IMPLS:
        raise ValueError(f'impl={impl!r}: must be one of {IMPLS}')
    return impl


def compute(layer: 'MixConv2d', x: Tensor) -> Tensor:
    """The mixed convolution ``layer`` of ``x``, and its activation if it has one, by the implementation of `choose`."""
    impl = choose(layer, x)
    if impl in OPERATORS:
        if layer.activation is not None and not _needs_grad(layer, x):
            return operator(layer, x, impl, layer.activation)
        out = operator(layer, x, impl)
    else:
        nchw = SLOW_GRADIENTS and _in_channels_last_for_gradients(layer, x)
        out = {'split': split, 'padded': padded}[impl](layer, x.contiguous() if nchw else x)
        out = out.contiguous(memory_format=torch.channels_last) if nchw else out
    return out if layer.activation is None else getattr(F, layer.activation)(out)


def choose(layer: 'MixConv2d', x: Tensor) -> str:
    """The implementation that runs: ``layer.impl`` unless it cannot run here; for 'auto' the fastest.

    On a CPU 'auto' is 'native', except for a vanilla 3x3 layer in training: for that kernel alone PyTorch has a fast
    weight gradient of its own, and is faster in NCHW or with a stride (docs/speed.md). On other devices 'auto' is
    'split', on CUDA too, because 'triton' has not been measured on a GPU.

    'native' becomes 'split' without a compiler and off the CPU, 'triton' without Triton and off CUDA (but see
    :func:`triton_ops.available`). All become 'split' in exports, in torch.func transforms, under a mode that looks at
    each operator (PyTorch's FLOP counter), and if the group convolutions have hooks or have been replaced, because then
    these must be called: a pruning hook sets the weight.
    """
    if layer.impl == 'split' or isinstance(x, Proxy) or exporting() or is_observed():
        return 'split'
    if not all(map(_is_plain, layer.convs)):
        return 'split'
    if layer.impl == 'padded':
        return 'padded'
    if x.dim() != 4 or x.dtype not in native.DTYPES:
        return 'split'
    if layer.impl == 'triton':
        return 'triton' if triton_ops.available(x.device.type) else 'split'
    if not x.is_cpu:
        return 'split'
    if (
        layer.impl == 'auto'
        and len(layer.convs) == 1
        and max(layer.convs[0].kernel_size) <= 3
        and _needs_grad(layer, x)
        and not (is_channels_last(x) and (layer.stride == (1, 1) or SLOW_GRADIENTS))
    ):
        return 'split'
    return 'native' if native.available() else 'split'


def exporting() -> bool:
    """Whether the graph must hold plain operators only: in exports, traces and torch.func transforms."""
    if is_compiling():
        # a PyTorch that cannot tell an export from a compilation gets plain operators in both
        return torch.compiler.is_exporting() if hasattr(torch.compiler, 'is_exporting') else True
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]  # public, but missing in torch.jit's __all__
    return tracing or torch.onnx.is_in_onnx_export() or _in_functorch()


def _in_channels_last_for_gradients(layer: 'MixConv2d', x: Tensor) -> bool:
    eager = not isinstance(x, Proxy) and x.is_cpu and not exporting()
    return eager and is_channels_last(x) and _needs_grad(layer, x)


def _needs_grad(layer: 'MixConv2d', x: Tensor) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in layer.parameters()))


def _is_plain(conv: nn.Module) -> bool:
    """Whether ``conv`` may be computed without calling it: an ``nn.Conv2d`` without hooks, whose call is its own."""
    return type(conv) is nn.Conv2d and not has_hooks(conv)


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of ``module`` does more than its class says: hooks of its own, or another ``forward``."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or 'forward' in module.__dict__
    )


def is_observed() -> bool:
    """Whether something looks at each operator or module that runs: a TorchDispatchMode, or a hook on all modules."""
    if is_compiling():
        return False
    return torch._C._len_torch_dispatch_stack() > 0 or any(
        getattr(torch.nn.modules.module, name) for name in HOOKS_ON_ALL
    )


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x`` is (N, C, H, W) and its channels lie next to each other."""
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def split(layer: 'MixConv2d', x: Tensor) -> Tensor:
    """Group by group."""
    if len(layer.convs) == 1:
        return _convolve(layer, layer.convs[0], x)
    groups = torch.split(x, list(layer.in_splits), dim=1)
    return torch.cat([_convolve(layer, conv, groups[i]) for i, conv in enumerate(layer.convs)], dim=1)


def _convolve(layer: 'MixConv2d', conv: nn.Conv2d, x: Tensor) -> Tensor:
    if layer.padding == 'same':
        x = pad_same(x, conv.kernel_size, conv.stride, conv.dilation)
    if SLOW_GRADIENTS and _is_plain(conv) and not is_observed():
        return _depthwise(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    return conv(x)


def _depthwise(x: Tensor, weight: Tensor, bias: Optional[Tensor], *options: Any) -> Tensor:
    """``F.conv2d``, where gradients are slow in channels_last with the weight in NCHW."""
    if SLOW_GRADIENTS:
        # PyTorch takes the layout from the strides of the weight too, and a model's ``.to`` changes them
        weight = weight.flatten().view(weight.shape)
    return F.conv2d(x, weight, bias, *options)


def operator(layer: 'MixConv2d', x: Tensor, impl: str, activation: str = 'none') -> Tensor:
    """All groups in one call of the operator of ``impl``, in the memory format of ``x``."""
    convs = layer.convs
    if layer.out_channels != layer.in_channels:
        x = x.repeat_interleave(layer.out_channels // layer.in_channels, dim=1)
    same = layer.padding == 'same'
    return getattr(torch.ops.mixdet, OPERATORS[impl])(
        x,
        [conv.weight for conv in convs],
        _bias(layer),
        layer.stride,
        [0] * (2 * len(convs)) if same else [pad for conv in convs for pad in conv.padding],
        [step for conv in convs for step in conv.dilation],
        same,
        activation,
    )


def _bias(layer: 'MixConv2d') -> Optional[Tensor]:
    biases = [conv.bias for conv in layer.convs if conv.bias is not None]
    return torch.cat(biases) if biases else None


def padded(layer: 'MixConv2d', x: Tensor) -> Tensor:
    """One convolution, with every kernel amid the zeros of one that is large enough for all."""
    if len(layer.convs) == 1:
        return split(layer, x)
    size = tuple(x.shape[2:])
    pads = [_pads_before(layer, conv, size) for conv in layer.convs]
    before = tuple(map(max, zip(*pads)))
    places = [tuple(b - p for b, p in zip(before, pad)) for pad in pads]
    weight, bias = _assembled(layer, places)
    after = [
        max(_output_size(layer, size, i) * s - s + weight.shape[2 + i] - size[i] - before[i], 0)
        for i, s in enumerate(layer.stride)
    ]
    if tuple(after) == before:
        return _depthwise(x, weight, bias, layer.stride, before, 1, layer.in_channels)
    x = F.pad(x, (before[1], after[1], before[0], after[0]))
    return _depthwise(x, weight, bias, layer.stride, 0, 1, layer.in_channels)


def _pads_before(layer: 'MixConv2d', conv: 'GroupConv', size: Sequence[int]) -> tuple[int, ...]:
    """Padding before the first row and column of an input of ``size`` px."""
    if layer.padding != 'same':
        return conv.padding
    return tuple(same_padding(*axis)[0] for axis in zip(size, conv.kernel_size, conv.stride, conv.dilation))


def _output_size(layer: 'MixConv2d', size: Sequence[int], axis: int) -> int:
    conv = layer.convs[0]
    if layer.padding == 'same':
        return -(-size[axis] // conv.stride[axis])
    extent = conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
    return (size[axis] + 2 * conv.padding[axis] - extent) // conv.stride[axis] + 1


def _assembled(layer: 'MixConv2d', places: list[tuple[int, ...]]) -> tuple[Tensor, Optional[Tensor]]:
    """What :func:`assemble` returns; where no gradient is wanted it is kept until a parameter changes.

    Parameters are compared by value, because EMA and others write to ``.data``, which version counters do not count.
    """
    if is_compiling() or (torch.is_grad_enabled() and any(parameter.requires_grad for parameter in layer.parameters())):
        return assemble(layer, places)
    parameters = list(layer.parameters())
    kept = _ASSEMBLED.get(layer)
    if kept is None or kept[0] != places or not all(map(_equal, kept[1], parameters)):
        with torch.no_grad():
            kept = (places, [parameter.detach().clone() for parameter in parameters], assemble(layer, places))
        _ASSEMBLED[layer] = kept
    return kept[2]


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and a.dtype == b.dtype and torch.equal(a, b)


def assemble(layer: 'MixConv2d', places: Sequence[Sequence[int]]) -> tuple[Tensor, Optional[Tensor]]:
    """Weight and bias of one convolution, which has the kernel of every group at its (row, column) in ``places``."""
    extents = [
        tuple(p + d * (k - 1) + 1 for p, k, d in zip(place, conv.kernel_size, conv.dilation))
        for place, conv in zip(places, layer.convs)
    ]
    weight = layer.convs[0].weight.new_zeros(layer.out_channels, 1, *map(max, zip(*extents)))
    first = 0
    for conv, (top, left), (bottom, right) in zip(layer.convs, places, extents):
        last = first + conv.out_channels
        weight[first:last, :, top : bottom : conv.dilation[0], left : right : conv.dilation[1]] = conv.weight
        first = last
    return weight, _bias(layer)
