"""Folding what inference does not need."""

import copy

import torch
from mmcv.cnn import Conv2d, ConvModule
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mixdet.layers import Conv2dSame, MixConv2d, PointwiseConv2d, PrepackedConv2d, implementations, prepacked

TARGETS = ('torch', 'export')
# exactly these: what derives from them may do something to its weight first (weight standardisation, parametrisations)
FOLDABLE = (nn.Conv2d, Conv2d, Conv2dAdaptivePadding, Conv2dSame, PointwiseConv2d, MixConv2d)
PREPACKABLE = (nn.Conv2d, Conv2d, PointwiseConv2d)


def fuse(model: nn.Module, target: str = 'torch') -> nn.Module:
    """A copy of ``model`` for inference: the same results with fewer operations.

    In every ``ConvModule`` (all of mixdet's blocks, neck and head, and most of MMDetection) the batch-norm is folded
    into the convolution before it, also through the groups of a mixed one. What then remains depends on the target:

    - 'torch': mixed convolutions stay, and take a ReLU or ReLU6 that follows into their native operator; ordinary ones
      become :class:`mixdet.layers.PrepackedConv2d`, which take SiLU too;
    - 'export': a mixed convolution becomes one ordinary convolution with all kernels padded to the largest, as graph
      runtimes have no fast form for the concatenation of small ones.

    Args:
        model: any module; it is not changed.
        target: 'torch' or 'export'.

    Raises:
        ValueError: on another target.
    """
    if target not in TARGETS:
        raise ValueError(f'target={target!r}: must be one of {TARGETS}')
    model = copy.deepcopy(model).eval().requires_grad_(False)
    blocks = [module for module in model.modules() if isinstance(module, ConvModule)]
    for block in blocks:
        _fold_norm(block)
        if block.with_activation and block.order[-1] == 'act' and hasattr(block.activate, 'inplace'):
            block.activate.inplace = True
    if target == 'torch':
        groups = {conv for module in model.modules() if isinstance(module, MixConv2d) for conv in module.convs}
        for module in model.modules():
            if module not in groups and _can_prepack(module):
                PrepackedConv2d.take_over(module)
        for block in blocks:
            _take_activation(block)
    else:
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, MixConv2d) and _can_pad(child):
                    setattr(module, name, _one_convolution(child))
    return model


def _fold_norm(block: ConvModule) -> None:
    conv = block.conv
    if (
        not block.with_norm
        or block.order[:2] != ('conv', 'norm')
        or type(conv) not in FOLDABLE
        or not isinstance(block.norm, _BatchNorm)
        or block.norm.running_mean is None
        or block.with_spectral_norm
    ):
        return
    norm = block.norm
    # in double, so that folding adds no error of its own
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    first = 0
    for part in conv.convs if isinstance(conv, MixConv2d) else [conv]:
        last = first + part.out_channels
        _scale(part, scale[first:last], shift[first:last])
        first = last
    delattr(block, block.norm_name)
    block.with_norm = False
    block.norm_name = None


def _scale(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> None:
    weight = conv.weight
    if conv.bias is not None:
        shift = shift + conv.bias.double() * scale
    conv.weight = nn.Parameter((weight.double() * scale.view(-1, 1, 1, 1)).to(weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)


def _take_activation(block: ConvModule) -> None:
    known = {MixConv2d: implementations.ACTIVATIONS, PrepackedConv2d: prepacked.ACTIVATIONS}.get(type(block.conv), {})
    if not block.with_activation or block.with_norm or block.order.index('act') < block.order.index('conv'):
        return
    for name, kind in known.items():
        if type(block.activate) is kind:
            block.conv.activation = name
            block.with_activation = False


def _can_prepack(module: nn.Module) -> bool:
    """A plain convolution, whose weight no hook replaces (spectral norm)."""
    return (
        type(module) in PREPACKABLE
        and not module._forward_pre_hooks
        and module.padding_mode == 'zeros'
        and not isinstance(module.padding, str)
    )


def _can_pad(conv: MixConv2d) -> bool:
    """SAME padding is that of the largest kernel, unless a kernel is smaller than the stride."""
    extents = [d * (k - 1) + 1 for part in conv.convs for k, d in zip(part.kernel_size, part.dilation)]
    return conv.padding != 'same' or min(extents) >= max(conv.stride)


def _one_convolution(mixed: MixConv2d) -> nn.Conv2d:
    if len(mixed.convs) == 1 and mixed.padding != 'same':
        return mixed.convs[0]
    extents = [tuple(d * (k - 1) + 1 for k, d in zip(part.kernel_size, part.dilation)) for part in mixed.convs]
    largest = tuple(map(max, zip(*extents)))
    places = [tuple((a - b) // 2 for a, b in zip(largest, extent)) for extent in extents]
    weight, bias = implementations.assemble(mixed, places)
    pads = tuple(part.padding for part in mixed.convs)
    conv = (Conv2dSame if mixed.padding == 'same' else nn.Conv2d)(
        mixed.in_channels,
        mixed.out_channels,
        largest,
        mixed.stride,
        padding=tuple(map(max, zip(*pads))),
        groups=mixed.in_channels,
        bias=bias is not None,
    )
    with torch.no_grad():
        conv.to(weight).weight.copy_(weight)
        if bias is not None:
            conv.bias.copy_(bias)
    return conv.eval().requires_grad_(False)
