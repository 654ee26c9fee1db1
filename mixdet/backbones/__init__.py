"""MobileNetV1, MobileNetV2 and MixNet, which state their ``out_channels`` and ``out_strides``. Uses ``layers``."""

from mixdet.backbones.mix_depthwise import MixDepthwise
from mixdet.backbones.mixnet import MixNet
from mixdet.backbones.mobilenet_v1 import MobileNetV1
from mixdet.backbones.mobilenet_v2 import MobileNetV2

__all__ = ['MixDepthwise', 'MixNet', 'MobileNetV1', 'MobileNetV2']
