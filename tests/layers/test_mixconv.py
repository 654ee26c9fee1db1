import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn import ConvModule, build_conv_layer
from mmengine.model import BaseModule
from strategies import mixconv_arguments

import mixdet  # noqa: F401  (its shims must come before mmcv's operators)
from mixdet.layers import MixConv2d, split_channels
from mixdet.registry import MODELS


def reference(x, layer, stride, dilation, padding, dilated):
    """The paper's definition, group by group, without the layer's own arithmetic."""
    outputs, start = [], 0
    for conv, channels, kernel in zip(layer.convs, layer.in_splits, layer.kernel_size):
        group, start = x[:, start : start + channels], start + channels
        steps = list(dilation)
        if dilated and stride == (1, 1):
            assert tuple(conv.weight.shape[2:]) == tuple(min(k, 3) for k in kernel)
            steps = [d * ((k - 1) // 2 if k > 1 else 1) for d, k in zip(dilation, kernel)]
        else:
            assert tuple(conv.weight.shape[2:]) == kernel
        extents = [d * (k - 1) for d, k in zip(steps, conv.weight.shape[2:])]
        pads = []
        for axis in (1, 0):  # F.pad wants the last axis first
            size, extent = x.shape[2 + axis], extents[axis]
            if padding == 'symmetric':
                pads += [extent // 2, extent // 2]
            else:
                total = max((-(-size // stride[axis]) - 1) * stride[axis] + extent + 1 - size, 0)
                pads += [total // 2, total - total // 2]
        outputs.append(
            F.conv2d(F.pad(group, pads), conv.weight, conv.bias, stride=stride, dilation=tuple(steps), groups=channels)
        )
    return torch.cat(outputs, 1)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(mixconv_arguments(), st.integers(1, 2), st.integers(5, 14), st.integers(5, 14), st.integers(0, 2**16))
def test_equals_plain_convolutions_per_group(arguments, batch, height, width, seed):
    torch.manual_seed(seed)
    layer = MixConv2d(**arguments).double()
    if arguments['bias']:
        for conv in layer.convs:
            torch.nn.init.normal_(conv.bias)
    x = torch.randn(batch, arguments['in_channels'], height, width, dtype=torch.double, requires_grad=True)
    stride = layer.stride
    expected = reference(x, layer, stride, layer.dilation, arguments['padding'], arguments['dilated'])
    actual = layer(x)
    assert actual.shape == (batch, arguments['out_channels'], -(-height // stride[0]), -(-width // stride[1]))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)

    upstream = torch.randn_like(expected)
    wanted = [x, *layer.parameters()]
    for a, b in zip(torch.autograd.grad(actual, wanted, upstream), torch.autograd.grad(expected, wanted, upstream)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ('channels', 'groups', 'split', 'expected'),
    [
        (32, 4, 'equal', (8, 8, 8, 8)),
        (32, 4, 'exponential', (16, 8, 4, 4)),
        (32, 3, 'equal', (12, 10, 10)),
        (32, 1, 'exponential', (32,)),
        (10, 3, [1, 2, 7], (1, 2, 7)),
    ],
)
def test_split_channels_as_in_the_paper(channels, groups, split, expected):
    assert split_channels(channels, groups, split) == expected


def test_one_group_is_a_depthwise_convolution():
    torch.manual_seed(0)
    layer = MixConv2d(6, 6, 5, stride=2)
    plain = torch.nn.Conv2d(6, 6, 5, stride=2, padding=2, groups=6, bias=False)
    plain.load_state_dict({'weight': layer.convs[0].weight})
    x = torch.randn(2, 6, 11, 8)
    assert torch.equal(layer(x), plain(x))


def test_multiplier_keeps_the_outputs_of_a_channel_together():
    layer = MixConv2d(4, 8, (1, 3))
    for conv in layer.convs:
        torch.nn.init.zeros_(conv.weight)
        conv.weight.data[:, 0, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(layer(x), x.repeat_interleave(2, dim=1))


def test_dilated_keeps_full_kernels_where_stride_is_two():
    shapes = {s: [tuple(c.kernel_size) for c in MixConv2d(8, 8, (3, 7), s, dilated=True).convs] for s in (1, 2)}
    assert shapes == {1: [(3, 3), (3, 3)], 2: [(3, 3), (7, 7)]}
    assert [c.dilation for c in MixConv2d(8, 8, (3, 7), dilated=True).convs] == [(1, 1), (3, 3)]


def test_int_padding_is_that_of_the_first_group():
    x = torch.randn(1, 6, 12, 12)
    for padding in (0, 1, 3):
        layer = MixConv2d(6, 6, (3, 5, 7), padding=padding)
        first = torch.nn.functional.conv2d(x[:, :2], layer.convs[0].weight, padding=padding, groups=2)
        assert layer(x).shape[2:] == first.shape[2:]
        assert torch.equal(layer(x)[:, :2], first)
    with pytest.raises(ValueError, match='put the smallest kernel first'):
        MixConv2d(6, 6, (7, 3), padding=0)


class Wrapper(BaseModule):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


def test_works_in_build_conv_layer_and_conv_module():
    cfg = dict(type='mixdet.MixConv2d', split='exponential')
    built = build_conv_layer(cfg, 16, 16, (3, 5, 7), stride=2, padding='same', groups=16, bias=False)
    assert isinstance(built, MixConv2d) and built.in_splits == (8, 4, 4)
    block = ConvModule(16, 32, (3, 5), padding='symmetric', groups=16, conv_cfg=cfg, norm_cfg=dict(type='BN'))
    assert block(torch.randn(2, 16, 9, 9)).shape == (2, 32, 9, 9)
    assert block.conv.convs[0].bias is None and block.groups == 16
    plain = ConvModule(16, 16, 3, padding=1, groups=16, conv_cfg=dict(type='mixdet.MixConv2d'))
    assert plain(torch.randn(2, 16, 9, 9)).shape == (2, 16, 9, 9)


def test_init_weights_reaches_every_group():
    torch.manual_seed(0)
    layer = MixConv2d(3000, 6000, (3, 5), bias=True)
    for parameter in layer.parameters():
        torch.nn.init.constant_(parameter, 9.0)
    Wrapper(layer).init_weights()
    for conv, kernel in zip(layer.convs, (3, 5)):
        assert conv.weight.std().item() == pytest.approx((2 / (kernel**2 * 2)) ** 0.5, rel=0.02)
        assert not conv.bias.any()


def test_init_cfg_reaches_every_group():
    network = BaseModule(init_cfg=dict(type='Constant', layer='Conv2d', val=0.5))
    network.convs = torch.nn.ModuleList([MixConv2d(4, 4, (3, 5))])
    network.init_weights()
    assert all((conv.weight == 0.5).all() for conv in network.convs[0].convs)


def test_copies_and_pickles():
    layer = MixConv2d(6, 6, (3, 5), split=[2, 4])
    x = torch.randn(1, 6, 7, 7)
    for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(clone(x), layer(x))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(in_channels=2, out_channels=2, kernel_size=(3, 5, 7)), 'kernel_size has 3 groups but there are only 2'),
        (dict(in_channels=8, out_channels=8, kernel_size=(3, 4)), 'must be odd and positive'),
        (dict(in_channels=8, out_channels=8, kernel_size=0), 'must be odd and positive'),
        (dict(in_channels=8, out_channels=8, kernel_size=()), 'kernel_size=\\(\\)'),
        (dict(in_channels=8, out_channels=8, kernel_size='3'), "kernel_size='3'"),
        (dict(in_channels=8, out_channels=8, kernel_size=(3, (3, 5, 7))), 'an integer or a pair'),
        (dict(in_channels=8, out_channels=8, kernel_size=3.5), 'must be an integer'),
        (dict(in_channels=8, out_channels=4, kernel_size=3), 'channel multiplier m >= 1'),
        (dict(in_channels=8, out_channels=12, kernel_size=3), 'channel multiplier m >= 1'),
        (dict(in_channels=8, out_channels=8, kernel_size=3, groups=2), 'is depthwise'),
        (dict(in_channels=8, out_channels=8, kernel_size=3, padding='valid'), "padding='valid'"),
        (dict(in_channels=8, out_channels=8, kernel_size=3, stride=0), 'at least 1'),
        (dict(in_channels=8, out_channels=8, kernel_size=(3, 5), split='half'), "split='half'"),
        (dict(in_channels=8, out_channels=8, kernel_size=(3, 5), split=[3, 4]), 'add up to 8 channels'),
        (dict(in_channels=4, out_channels=4, kernel_size=(3, 5, 7, 9), split='exponential'), 'leaves a group empty'),
    ],
)
def test_impossible_arguments_are_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        MixConv2d(**arguments)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('padding', ['symmetric', 'same'])
@pytest.mark.parametrize(('kernel_size', 'stride', 'channels'), [(3, 1, 6), ((3, 5, 7), 2, 12)])
def test_symbolic_tracing_and_scripting(padding, kernel_size, stride, channels):
    """Both give a network for every input size."""
    layer = MixConv2d(6, channels, kernel_size, stride, padding, bias=True)
    for other in (torch.fx.symbolic_trace(layer), torch.jit.script(layer)):
        assert other.state_dict().keys() == layer.state_dict().keys()
        for size in ((9, 12), (8, 7)):
            x = torch.randn(2, 6, *size)
            torch.testing.assert_close(other(x), layer(x))


def test_scripting_keeps_an_activation():
    layer = MixConv2d(6, 6, (3, 5)).requires_grad_(False)
    for name in ('relu', 'relu6'):
        layer.activation = name
        x = 9 * torch.randn(2, 6, 7, 7)
        out = torch.jit.script(layer)(x)
        torch.testing.assert_close(out, layer(x))
        assert out.min() == 0 and (out.max() == 6) == (name == 'relu6')


def test_a_backbone_is_traced_symbolically():
    model = MODELS.build(dict(type='mixdet.MobileNetV2', widen_factor=0.25, kernel_sizes=(3, 5), padding='same')).eval()
    traced = torch.fx.symbolic_trace(model)
    for size in (64, 70):
        image = torch.randn(1, 3, size, size)
        for a, b in zip(traced(image), model(image)):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
