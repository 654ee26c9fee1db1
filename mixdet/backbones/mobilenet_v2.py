"""MobileNetV2 (Sandler et al., arXiv 1801.04381) with depthwise kernels of any size."""

from collections.abc import Sequence
from typing import Optional, Union

from mixdet.backbones.base import HEAD, StagedBackbone, layer_kernels
from mixdet.layers import ConvNormAct, InvertedResidual, make_divisible
from mixdet.layers.mixconv import KernelSizes, Split
from mixdet.registry import MODELS

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
# (expansion t, channels c, repeats n, stride s), table 2 of the MobileNetV2 paper. Each comment gives the resolution
# and the stride of the output for an image of 224 px, and which output of the backbone it is (0-3), if any.
LAYERS = (
    (1, 16, 1, 1),  # 112 x 112 px, stride 2
    (6, 24, 2, 2),  # 56 x 56 px, stride 4, output 0
    (6, 32, 3, 2),  # 28 x 28 px, stride 8, output 1
    (6, 64, 4, 2),  # 14 x 14 px, stride 16
    (6, 96, 3, 1),  # 14 x 14 px, stride 16, output 2
    (6, 160, 3, 2),  # 7 x 7 px, stride 32
    (6, 320, 1, 1),  # 7 x 7 px, stride 32, output 3
)


@MODELS.register_module()
class MobileNetV2(StagedBackbone):
    """MobileNetV2; see :class:`StagedBackbone` for ``out_indices``, ``frozen_stages``, ``norm_eval``, ``init_cfg``.

    SSDLite takes ``out_indices=('expansion', 'head')``: 576 and 1280 channels. The head keeps its 1280 channels where
    ``widen_factor`` is below 1.

    Args:
        widen_factor: width multiplier of all channels.
        kernel_sizes: kernel size(s) of every depthwise layer, as in ``MixConv2d``: 3, 5, (3, 5), (3, 5, 7) ...
        layer_kernel_sizes: ``{layer: kernel_sizes}`` for single layers, counted from 1 to 17 (paper fig. 5).
        split, dilated: see ``MixConv2d`` (paper fig. 6).
        padding: 'symmetric', or 'same' for weights from TensorFlow.
        norm_cfg, act_cfg, with_cp: as everywhere in MMDetection.
    """

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[Union[int, str]] = (0, 1, 2, 3),
        kernel_sizes: KernelSizes = 3,
        layer_kernel_sizes: Optional[dict[int, KernelSizes]] = None,
        split: Split = 'equal',
        dilated: bool = False,
        padding: str = 'symmetric',
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: Optional[dict] = None,
        act_cfg: Optional[dict] = None,
        with_cp: bool = False,
        init_cfg: Optional[Union[dict, list]] = None,
    ) -> None:
        norm_cfg = norm_cfg or dict(type='BN', eps=0.001)
        act_cfg = act_cfg or dict(type='ReLU6')
        layers = [(t, make_divisible(c * widen_factor), s if i == 0 else 1) for t, c, n, s in LAYERS for i in range(n)]
        channels = make_divisible(STEM_CHANNELS * widen_factor)
        stem = ConvNormAct(3, channels, 3, stride=2, padding=padding, norm_cfg=norm_cfg, act_cfg=act_cfg)
        blocks = []
        for (expand_ratio, out_channels, stride), kernels in zip(
            layers, layer_kernels(len(layers), kernel_sizes, layer_kernel_sizes)
        ):
            blocks.append(
                InvertedResidual(
                    channels,
                    out_channels,
                    kernels,
                    stride,
                    expand_ratio,
                    split=split,
                    dilated=dilated,
                    padding=padding,
                    norm_cfg=norm_cfg,
                    act_cfg=act_cfg,
                    with_cp=with_cp,
                )
            )
            channels = out_channels
        head = None
        if HEAD in out_indices:
            head = ConvNormAct(
                channels, make_divisible(HEAD_CHANNELS * max(widen_factor, 1.0)), norm_cfg=norm_cfg, act_cfg=act_cfg
            )
        super().__init__(stem, blocks, head, out_indices, frozen_stages, norm_eval, init_cfg)
