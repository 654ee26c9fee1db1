"""MobileNetV1 (Howard et al., arXiv 1704.04861) with depthwise kernels of any size."""

from collections.abc import Sequence
from typing import Optional, Union

from mixdet.backbones.base import StagedBackbone, layer_kernels
from mixdet.layers import ConvNormAct, DepthwiseSeparable
from mixdet.layers.mixconv import KernelSizes, Split
from mixdet.registry import MODELS

STEM_CHANNELS = 32
# (channels, stride) of the 13 depthwise separable layers, table 1 of the MobileNetV1 paper. Each comment gives the
# resolution and the stride of the output for an image of 224 px, and which output of the backbone it is (0-3), if any.
LAYERS = (
    (64, 1),  # 112 x 112 px, stride 2
    (128, 2), (128, 1),  # 56 x 56 px, stride 4, output 0
    (256, 2), (256, 1),  # 28 x 28 px, stride 8, output 1
    (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),  # 14 x 14 px, stride 16, output 2
    (1024, 2), (1024, 1),  # 7 x 7 px, stride 32, output 3
)  # fmt: skip


@MODELS.register_module()
class MobileNetV1(StagedBackbone):
    """MobileNetV1; see :class:`StagedBackbone` for ``out_indices``, ``frozen_stages``, ``norm_eval`` and ``init_cfg``.

    SSDLite takes outputs 2 (layer 11, stride 16) and 3 (layer 13, stride 32). Widths follow TF-slim's mobilenet_v1.py.

    Args:
        widen_factor: width multiplier of all channels.
        kernel_sizes: kernel size(s) of every depthwise layer, as in ``MixConv2d``: 3, 5, (3, 5), (3, 5, 7) ...
        layer_kernel_sizes: ``{layer: kernel_sizes}`` for single layers, counted from 1 to 13 (paper fig. 5).
        split, dilated: see ``MixConv2d`` (paper fig. 6).
        padding: 'symmetric', or 'same' for weights from TensorFlow.
        norm_cfg, act_cfg, with_cp: as everywhere in MMDetection.
    """

    has_head = False

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (0, 1, 2, 3),
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

        def width(channels: int) -> int:
            return max(int(channels * widen_factor), 8)

        channels = width(STEM_CHANNELS)
        stem = ConvNormAct(3, channels, 3, stride=2, padding=padding, norm_cfg=norm_cfg, act_cfg=act_cfg)
        blocks = []
        for (out_channels, stride), kernels in zip(
            LAYERS, layer_kernels(len(LAYERS), kernel_sizes, layer_kernel_sizes)
        ):
            blocks.append(
                DepthwiseSeparable(
                    channels,
                    width(out_channels),
                    kernels,
                    stride,
                    split=split,
                    dilated=dilated,
                    padding=padding,
                    norm_cfg=norm_cfg,
                    act_cfg=act_cfg,
                    with_cp=with_cp,
                )
            )
            channels = blocks[-1].out_channels
        super().__init__(stem, blocks, None, out_indices, frozen_stages, norm_eval, init_cfg)
