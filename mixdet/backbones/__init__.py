"""MobileNetV1, MobileNetV2 and MixNet; each states its own ``out_channels`` and ``out_strides``."""

from mixdet.backbones.mixnet import MixNet
from mixdet.backbones.mobilenet_v1 import MobileNetV1
from mixdet.backbones.mobilenet_v2 import MobileNetV2

__all__ = ['MixNet', 'MobileNetV1', 'MobileNetV2']
