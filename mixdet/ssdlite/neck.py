"""SSDLite's extra layers."""

from collections.abc import Sequence
from typing import Optional, Union

from mmengine.model import BaseModule, ModuleList, Sequential
from torch import Tensor

from mixdet.layers import ConvNormAct, MixConvNormAct
from mixdet.registry import MODELS


@MODELS.register_module()
class SSDLiteNeck(BaseModule):
    """The backbone's features, followed by extra layers, each of which halves the resolution.

    An extra layer with C channels is a 1x1 convolution to C / 2, a depthwise 3x3 of stride 2 and a 1x1 to C, each with
    batch-norm and ReLU6 (TF Object Detection API, feature_map_generators.py with ``use_depthwise``).

    Args:
        in_channels: channels of the backbone's outputs, finest first.
        extra_channels: channels C of each extra layer.
        padding: 'symmetric', or 'same' for weights from TensorFlow.
        norm_cfg, act_cfg, init_cfg: as everywhere in MMDetection.

    Attributes:
        out_channels (tuple[int]): channels of all levels, the backbone's first.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        extra_channels: Sequence[int] = (512, 256, 256, 128),
        padding: str = 'symmetric',
        norm_cfg: Optional[dict] = None,
        act_cfg: Optional[dict] = None,
        init_cfg: Optional[Union[dict, list]] = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        norm_cfg = norm_cfg or dict(type='BN', eps=0.001)
        act_cfg = act_cfg or dict(type='ReLU6')
        self.in_channels = tuple(in_channels)
        self.out_channels = self.in_channels + tuple(extra_channels)
        self.extra_layers = ModuleList()
        channels = self.in_channels[-1]
        for out_channels in extra_channels:
            mid_channels = out_channels // 2
            self.extra_layers.append(
                Sequential(
                    ConvNormAct(channels, mid_channels, norm_cfg=norm_cfg, act_cfg=act_cfg),
                    MixConvNormAct(mid_channels, 3, stride=2, padding=padding, norm_cfg=norm_cfg, act_cfg=act_cfg),
                    ConvNormAct(mid_channels, out_channels, norm_cfg=norm_cfg, act_cfg=act_cfg),
                )
            )
            channels = out_channels

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Features (N, C_i, H_i, W_i) of all levels, finest first, from those of the backbone."""
        outs = list(inputs)
        for layer in self.extra_layers:
            outs.append(layer(outs[-1]))
        return tuple(outs)
