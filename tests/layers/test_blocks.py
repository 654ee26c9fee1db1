import pytest
import torch
from mmengine.model import BaseModule
from torch import nn

from mixdet.layers import (
    Conv2dSame,
    ConvNormAct,
    DepthwiseSeparable,
    InvertedResidual,
    PointwiseConv2d,
    SqueezeExcite,
    make_divisible,
)

CFG = dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU6'))


@pytest.mark.parametrize(
    ('channels', 'expected'),
    [(32 * 1.3, 40), (24 * 1.6, 40), (16 * 0.25, 8), (10, 16), (11.9, 16), (100, 104), (320, 320)],
)
def test_make_divisible(channels, expected):
    assert make_divisible(channels) == expected and expected >= 0.9 * channels


def test_shortcut_only_where_the_shape_is_kept():
    assert InvertedResidual(8, 8, **CFG).with_shortcut
    assert (
        not InvertedResidual(8, 8, stride=2, **CFG).with_shortcut and not InvertedResidual(8, 16, **CFG).with_shortcut
    )
    block = InvertedResidual(8, 8, **CFG).eval()
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(block(x), x + block.project(block.depthwise(block.expand(x))))


@pytest.mark.parametrize(
    ('arguments', 'cls', 'padding'),
    [
        (dict(kernel_size=1), PointwiseConv2d, 0),
        (dict(kernel_size=1, padding='same'), PointwiseConv2d, 0),
        (dict(kernel_size=1, stride=2), nn.Conv2d, 0),
        (dict(kernel_size=3), nn.Conv2d, 1),
        (dict(kernel_size=5, stride=2), nn.Conv2d, 2),
        (dict(kernel_size=5, padding='same'), Conv2dSame, 0),
    ],
)
def test_type_and_padding_of_the_convolution(arguments, cls, padding):
    conv = ConvNormAct(4, 6, **arguments, **CFG).conv
    assert type(conv) is cls and conv.padding == (padding, padding)


def test_parts_of_an_inverted_residual():
    block = InvertedResidual(4, 8, expand_ratio=3, expand_groups=2, project_groups=4, **CFG)
    assert block.se is None and not block.project.with_activation and block.project.norm.num_features == 8
    assert (block.expand.conv.out_channels, block.expand.conv.groups, block.project.conv.groups) == (12, 2, 4)
    assert InvertedResidual(4, 8, expand_ratio=1, **CFG).expand is None


@pytest.mark.parametrize('cls', [DepthwiseSeparable, InvertedResidual])
@pytest.mark.parametrize('with_cp', [False, True])
def test_checkpointing_computes_a_block_again_for_its_gradient(cls, with_cp):
    block = cls(4, 4, with_cp=with_cp, **CFG)
    calls = []
    block.depthwise.conv.register_forward_hook(lambda *args: calls.append(1))
    block(torch.randn(2, 4, 5, 5)).sum().backward()  # no gradient of the input is wanted: it would save nothing
    assert len(calls) == 1
    block(torch.randn(2, 4, 5, 5, requires_grad=True)).sum().backward()
    assert len(calls) == (3 if with_cp else 2)


@pytest.mark.parametrize(('channels', 'se_ratio', 'squeezed'), [(40, 0.5, 20), (10, 0.25, 2), (3, 0.25, 1)])
def test_squeeze_width_is_a_share_of_the_blocks_input(channels, se_ratio, squeezed):
    se = InvertedResidual(channels, channels, expand_ratio=6, se_ratio=se_ratio, **CFG).se
    widths = se.reduce.in_channels, se.reduce.out_channels, se.expand.in_channels, se.expand.out_channels
    assert widths == (6 * channels, squeezed, squeezed, 6 * channels)


def test_activation_of_squeeze_excite():
    assert isinstance(InvertedResidual(8, 8, se_ratio=0.5, **CFG).se.act, nn.ReLU6)
    assert isinstance(InvertedResidual(8, 8, se_ratio=0.5).se.act, nn.Identity)


def test_squeeze_excite_scales_channels_by_a_gate():
    layer = SqueezeExcite(6, 2, dict(type='ReLU'))
    nn.init.zeros_(layer.expand.weight)
    layer.expand.bias.data = torch.tensor([0.0, 100, -100, 0, 0, 0])
    x = torch.randn(2, 6, 3, 3)
    gate = torch.tensor([0.5, 1, 0, 0.5, 0.5, 0.5]).view(1, 6, 1, 1)
    torch.testing.assert_close(layer(x), x * gate)


def test_init_cfg_around_a_block_is_not_overwritten_by_it():
    network = BaseModule(init_cfg=dict(type='Constant', layer='Conv2d', val=0.5))
    network.block = InvertedResidual(4, 4, **CFG)
    network.init_weights()
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(weights) == 3 and all((weight == 0.5).all() for weight in weights)
