"""The paper's op and the blocks made of it. Knows nothing of detection; uses ``registry`` alone."""

from mixdet.layers.blocks import (
    ConvNormAct,
    DepthwiseSeparable,
    InvertedResidual,
    MixConvNormAct,
    SqueezeExcite,
    make_divisible,
)
from mixdet.layers.depthwise import Where, depthwise_layers, grow, mix_depthwise
from mixdet.layers.mixconv import MixConv2d, parse_kernel_sizes, set_mixconv_impl, split_channels
from mixdet.layers.padding import Conv2dSame
from mixdet.layers.pointwise import PointwiseConv2d
from mixdet.layers.prepacked import PrepackedConv2d

__all__ = [
    'Conv2dSame',
    'ConvNormAct',
    'DepthwiseSeparable',
    'InvertedResidual',
    'MixConv2d',
    'MixConvNormAct',
    'PointwiseConv2d',
    'PrepackedConv2d',
    'SqueezeExcite',
    'Where',
    'depthwise_layers',
    'grow',
    'make_divisible',
    'mix_depthwise',
    'parse_kernel_sizes',
    'set_mixconv_impl',
    'split_channels',
]
