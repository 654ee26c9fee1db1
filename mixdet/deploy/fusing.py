"""Rewriting a trained network for inference: fewer operations, the same results."""

import copy
from typing import Any

import torch
from mmcv.cnn import Conv2d, ConvModule
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmengine.model import is_model_wrapper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mixdet.layers import (
    Conv2dSame,
    MixConv2d,
    PointwiseConv2d,
    PrepackedConv2d,
    implementations,
    prepacked,
    set_mixconv_impl,
)

EXPORTS = ('export', 'export-split')
TARGETS = ('torch', *EXPORTS)
# exactly these: a subclass may change its weight before it uses it (weight standardisation, parametrisations)
FOLDABLE = (nn.Conv2d, Conv2d, Conv2dAdaptivePadding, Conv2dSame, PointwiseConv2d)
PREPACKABLE = (nn.Conv2d, Conv2d, PointwiseConv2d)


def optimize_for_inference(model: nn.Module) -> nn.Module:
    """``model`` as it predicts fastest: on a CPU a fused copy in channels_last, elsewhere ``model`` itself.

    Results differ by the rounding of the folded batch-norms. A model wrapped for distributed data parallel is returned
    as it is too.
    """
    devices = {parameter.device.type for parameter in model.parameters()}
    if devices != {'cpu'} or is_model_wrapper(model):
        return model
    fused: Any = fuse(model)  # torch's annotations of Module.to do not know memory_format alone
    return fused.to(memory_format=torch.channels_last)


def fuse(model: nn.Module, target: str = 'torch') -> nn.Module:
    """A copy of ``model`` for inference that needs fewer operations for the same results.

    In every ``ConvModule`` (all of mixdet's blocks, neck and head, and most of MMDetection) the batch-norm is folded
    into the preceding convolution, which may be a mixed one. The rest depends on the target:

    - 'torch': mixed convolutions are kept, and a following ReLU or ReLU6 is computed by their native operator; ordinary
      convolutions become :class:`mixdet.layers.PrepackedConv2d`, which also computes SiLU;
    - 'export': a mixed convolution becomes one ordinary convolution with all kernels padded to the largest, as graph
      runtimes are slow at many small convolutions and a concatenation;
    - 'export-split': mixed convolutions are traced as one convolution for each kernel size and a concatenation.

    Args:
        model: any module; it is not changed.
        target: one of ``TARGETS``.

    Raises:
        ValueError: if the target is none of them, or an export is asked of a model that is fused for 'torch' already.
    """
    if target not in TARGETS:
        raise ValueError(f'target={target!r}: must be one of {TARGETS}')
    if target in EXPORTS and any(map(_is_fused, model.modules())):
        raise ValueError(
            f'target={target!r}: the model is fused already; give the original, in a Detector that of fuse=False'
        )
    model = copy.deepcopy(model).eval().requires_grad_(False)
    blocks = [module for module in model.modules() if isinstance(module, ConvModule)]
    for block in blocks:
        _fold_norm(block)
        if block.with_activation and block.order[-1] == 'act' and hasattr(block.activate, 'inplace'):
            block.activate.inplace = True
    if target == 'torch':
        _prepack(model)
        for block in blocks:
            _take_activation(block)
    elif target == 'export-split':
        set_mixconv_impl(model, 'split')
    else:
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, MixConv2d) and _can_pad(child):
                    setattr(module, name, _one_convolution(child))
    return model


def _is_fused(module: nn.Module) -> bool:
    return isinstance(module, PrepackedConv2d) or (isinstance(module, MixConv2d) and module.activation is not None)


def _fold_norm(block: ConvModule) -> None:
    """Fold a batch-norm that directly follows the convolution of ``block`` into it, unless one of them is unusual."""
    convs = _plain_convolutions(block.conv)
    if not convs or not block.with_norm or block.order[:2] != ('conv', 'norm'):
        return
    norm = block.norm
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.running_var is None:
        return
    # in double precision, so that folding adds no rounding error of its own
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    sizes = [conv.out_channels for conv in convs]
    for conv, conv_scale, conv_shift in zip(convs, scale.split(sizes), shift.split(sizes)):
        _scale_and_shift(conv, conv_scale, conv_shift)
    delattr(block, block.norm_name)
    block.with_norm = False
    block.norm_name = None


def _plain_convolutions(module: nn.Module) -> list[nn.Conv2d]:
    """The ordinary convolutions that ``module`` is or, as a mixed one, consists of, in the order of their channels.

    Empty if there is another module, or a hook (spectral norm, pruning) that replaces a weight before every call.
    """
    parts = list(module.convs) if isinstance(module, MixConv2d) else [module]
    convs = [part for part in parts if isinstance(part, nn.Conv2d)]
    plain = [conv for conv in convs if type(conv) in FOLDABLE and not conv._forward_pre_hooks]
    return plain if len(plain) == len(parts) else []


def _scale_and_shift(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> None:
    """Have ``conv`` multiply its output channels by ``scale`` and add ``shift``, both of shape (C',)."""
    weight = conv.weight
    if conv.bias is not None:
        shift = shift + conv.bias.double() * scale
    conv.weight = nn.Parameter((weight.double() * scale.view(-1, 1, 1, 1)).to(weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)


def _take_activation(block: ConvModule) -> None:
    """Have the convolution of ``block`` compute the activation that directly follows it, if it can."""
    known = {MixConv2d: implementations.ACTIVATIONS, PrepackedConv2d: prepacked.ACTIVATIONS}.get(type(block.conv), {})
    if not block.with_activation or block.with_norm or block.order.index('act') < block.order.index('conv'):
        return
    for name, activation in known.items():
        if type(block.activate) is activation:
            block.conv.activation = name
            block.with_activation = False


def _prepack(model: nn.Module) -> None:
    """Make the ordinary convolutions of ``model``, except groups of mixed ones, ``PrepackedConv2d``."""
    groups = {conv for module in model.modules() if isinstance(module, MixConv2d) for conv in module.convs}
    for module in model.modules():
        if (
            isinstance(module, nn.Conv2d)
            and type(module) in PREPACKABLE
            and module not in groups
            and not module._forward_pre_hooks  # which may replace the weight (spectral norm)
            and module.padding_mode == 'zeros'
            and not isinstance(module.padding, str)
        ):
            PrepackedConv2d.take_over(module)


def _can_pad(mixed: MixConv2d) -> bool:
    """Whether all kernels of ``mixed`` can be padded to the largest.

    SAME pads every group by its own kernel. The kernels have a common centre unless one is smaller than the stride:
    it would need a negative padding, and gets none.
    """
    convs = _plain_convolutions(mixed)
    if mixed.padding != 'same':
        return bool(convs)
    return bool(convs) and min(min(_extent(conv)) for conv in convs) >= max(mixed.stride)


def _extent(conv: nn.Conv2d) -> tuple[int, int]:
    """Height and width, px, that the kernel covers."""
    (height, width), (dilation_y, dilation_x) = conv.kernel_size, conv.dilation
    return dilation_y * (height - 1) + 1, dilation_x * (width - 1) + 1


def _one_convolution(mixed: MixConv2d) -> nn.Conv2d:
    """``mixed`` as one depthwise convolution with every kernel in the middle of the largest."""
    convs = _plain_convolutions(mixed)
    if len(convs) == 1 and mixed.padding != 'same':
        return convs[0]
    extents = [_extent(conv) for conv in convs]
    height, width = (max(sides) for sides in zip(*extents))
    places = [((height - h) // 2, (width - w) // 2) for h, w in extents]
    weight, bias = implementations.assemble(mixed, places)
    if isinstance(mixed.padding, str):  # 'symmetric', or 'same', which Conv2dSame computes from the input's size
        padding = (height - 1) // 2, (width - 1) // 2
    else:  # that of the first group
        padding = mixed.padding[0] + places[0][0], mixed.padding[1] + places[0][1]
    conv = (Conv2dSame if mixed.padding == 'same' else nn.Conv2d)(
        mixed.in_channels,
        mixed.out_channels,
        (height, width),
        mixed.stride,
        padding,
        groups=mixed.in_channels,
        bias=False,
    )
    conv.weight = nn.Parameter(weight.detach(), requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return conv.eval()
