import torch
from torch import nn

from mixdet.layers import MixConv2d
from mixdet.ssdlite import SSDLiteNeck


def test_neck_adds_levels_of_half_the_size():
    neck = SSDLiteNeck((8, 16), extra_channels=(12, 6))
    outs = neck([torch.randn(2, 8, 20, 20), torch.randn(2, 16, 10, 9)])
    assert [tuple(out.shape) for out in outs] == [(2, 8, 20, 20), (2, 16, 10, 9), (2, 12, 5, 5), (2, 6, 3, 3)]
    assert neck.out_channels == (8, 16, 12, 6)


def test_extra_layers_are_tensorflows():
    """1x1 to half the channels, depthwise 3x3 of stride 2, 1x1; no bias, batch-norm with eps 1e-3, ReLU6."""
    layer = SSDLiteNeck((8,), extra_channels=(12,)).extra_layers[0]
    convs = [module for module in layer.modules() if isinstance(module, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size, c.stride) for c in convs] == [
        (8, 6, (1, 1), (1, 1)),
        (6, 6, (3, 3), (2, 2)),
        (6, 12, (1, 1), (1, 1)),
    ]
    assert not any(conv.bias is not None for conv in convs) and convs[1].groups == 6
    assert [module.eps for module in layer.modules() if isinstance(module, nn.BatchNorm2d)] == [1e-3] * 3
    assert sum(isinstance(module, nn.ReLU6) for module in layer.modules()) == 3


def test_default_channels_are_tensorflows():
    assert SSDLiteNeck((96, 1280)).out_channels == (96, 1280, 512, 256, 256, 128)


def test_norm_and_activation_come_from_the_config():
    neck = SSDLiteNeck((8,), (12,), norm_cfg=dict(type='BN', eps=0.5), act_cfg=dict(type='SiLU'))
    assert {module.eps for module in neck.modules() if isinstance(module, nn.BatchNorm2d)} == {0.5}
    assert sum(isinstance(module, nn.SiLU) for module in neck.modules()) == 3


def test_same_padding_reaches_the_strided_convolution():
    neck = SSDLiteNeck((8,), extra_channels=(12,), padding='same')
    (depthwise,) = (module for module in neck.modules() if isinstance(module, MixConv2d))
    assert depthwise.padding == 'same'
    assert neck([torch.randn(1, 8, 19, 10)])[1].shape[2:] == (10, 5)
