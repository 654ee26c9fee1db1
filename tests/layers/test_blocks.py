import pytest
import torch
from mmengine.model import BaseModule
from torch import nn

from mixdet.layers import ConvNormAct, InvertedResidual, SqueezeExcite, make_divisible

CFG = dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU6'))


@pytest.mark.parametrize(
    ('channels', 'expected'), [(32 * 1.3, 40), (24 * 1.6, 40), (16 * 0.25, 8), (10, 16), (11.9, 16), (320, 320)]
)
def test_make_divisible(channels, expected):
    assert make_divisible(channels) == expected and expected >= 0.9 * channels


def test_shortcut_only_where_the_shape_is_kept():
    assert InvertedResidual(8, 8, **CFG).with_shortcut
    assert (
        not InvertedResidual(8, 8, stride=2, **CFG).with_shortcut and not InvertedResidual(8, 16, **CFG).with_shortcut
    )
    block = InvertedResidual(8, 8, **CFG).eval()
    nn.init.zeros_(block.project.norm.weight)
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(block(x), x)


def test_squeeze_width_is_a_share_of_the_blocks_input():
    block = InvertedResidual(40, 40, expand_ratio=6, se_ratio=0.5, **CFG)
    assert (block.se.reduce.in_channels, block.se.reduce.out_channels, block.se.expand.out_channels) == (240, 20, 240)


def test_squeeze_excite_scales_channels_by_a_gate():
    layer = SqueezeExcite(6, 2, dict(type='ReLU'))
    nn.init.zeros_(layer.expand.weight)
    layer.expand.bias.data = torch.tensor([0.0, 100, -100, 0, 0, 0])
    x = torch.randn(2, 6, 3, 3)
    gate = torch.tensor([0.5, 1, 0, 0.5, 0.5, 0.5]).view(1, 6, 1, 1)
    torch.testing.assert_close(layer(x), x * gate)


def test_init_cfg_around_a_block_is_not_overwritten_by_it():
    network = BaseModule(init_cfg=dict(type='Constant', layer='Conv2d', val=0.5))
    network.conv = ConvNormAct(3, 4, 3, **CFG)
    network.init_weights()
    assert (network.conv.conv.weight == 0.5).all()
