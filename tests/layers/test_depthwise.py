"""The drop-in on networks of MMDetection and timm: same function, sizes, training, checkpoints, errors."""

import copy

import pytest
import torch
from helpers import import_timm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mixdet.benchmark.complexity import count_complexity
from mixdet.layers import Conv2dSame, MixConv2d, depthwise_layers, mix_depthwise
from mixdet.registry import MODELS

SIZE = (64, 96)
MMDET = {
    'MobileNetV2': (dict(type='MobileNetV2', widen_factor=0.25, out_indices=(1, 2, 4, 7)), (3, 5, 7)),
    'EfficientNet': (dict(type='EfficientNet', arch='b0', out_indices=(3, 4, 5)), (5, 7, 9)),
    'CSPNeXt': (dict(type='CSPNeXt', deepen_factor=0.167, widen_factor=0.25), (5, 7, 9)),
    'YOLOX': (dict(type='CSPDarknet', deepen_factor=0.33, widen_factor=0.25, use_depthwise=True), (3, 5, 7)),
    'ours': (dict(type='mixdet.MobileNetV2', widen_factor=0.25, kernel_sizes=(3, 5)), (5, 7)),
}
TIMM = {
    'mobilenetv3_small_050': (5, 7, 9),
    'efficientnet_b0': (5, 7),
    'tf_efficientnet_b0': (5, 7, 9),  # TensorFlow's padding
    'convnext_atto': (7, 9, 11),  # with bias
}
EXPECTED_LAYERS = {
    'MobileNetV2': 17, 'EfficientNet': 16, 'CSPNeXt': 4, 'YOLOX': 12, 'ours': 17, 'mobilenetv3_small_050': 11,
    'efficientnet_b0': 16, 'tf_efficientnet_b0': 16, 'convnext_atto': 12,
}  # fmt: skip


def build(name):
    """A network with random weights and batch-norm statistics, and the kernel sizes to grow its own to."""
    torch.manual_seed(0)
    if name in MMDET:
        config, kernel_sizes = MMDET[name]
        network = MODELS.build(config)
    else:
        network, kernel_sizes = import_timm().create_model(name, num_classes=10), TIMM[name]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    network.eval()
    return network, kernel_sizes


def features(network, image):
    outputs = network(image)
    return outputs if isinstance(outputs, (list, tuple)) else (outputs,)


def relative(a, b):
    return float(((a - b).abs().max() / b.abs().max()).detach())


@pytest.mark.parametrize('name', [*MMDET, *TIMM])
def test_same_function_and_size_as_computed_by_hand(name):
    network, kernel_sizes = build(name)
    original = copy.deepcopy(network)
    image = torch.randn(2, 3, *SIZE)
    heights = {}
    for layer_name, layer in depthwise_layers(network).items():
        layer.register_forward_hook(lambda _, i, output, n=layer_name: heights.update({n: output.shape[-2:]}))
    before = features(network, image)
    replaced = mix_depthwise(network, kernel_sizes)
    assert len(replaced) == EXPECTED_LAYERS[name] and set(replaced) == set(heights)
    after = features(network, image)
    for ours, theirs in zip(after, before):
        assert theirs.std() > 1e-3 and relative(ours, theirs) <= 1e-5
    assert {id(m) for m in depthwise_layers(network).values()} == {
        id(m) for m in network.modules() if isinstance(m, MixConv2d)
    }

    params, macs = count_complexity(original, SIZE)[:2]
    for layer_name, layer in depthwise_layers(original).items():
        channels, groups = layer.out_channels, len(kernel_sizes)
        shares = [channels // groups + (channels % groups if i == 0 else 0) for i in range(groups)]
        old = sum(conv.weight.numel() for conv in layer.convs) if isinstance(layer, MixConv2d) else layer.weight.numel()
        extra = sum(share * k * k for share, k in zip(shares, kernel_sizes)) - old
        height, width = heights[layer_name]
        params, macs = params + extra, macs + extra * height * width
    assert count_complexity(network, SIZE)[:2] == (params, macs)


@pytest.mark.parametrize('name', ['MobileNetV2', 'CSPNeXt', 'mobilenetv3_small_050', 'convnext_atto'])
def test_trains_and_its_checkpoint_reloads(name, tmp_path):
    network, kernel_sizes = build(name)
    mix_depthwise(network, kernel_sizes)
    network.train()
    image, target = torch.randn(4, 3, *SIZE), None
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, 1e-3)
    losses = []
    for _ in range(6):
        output = features(network, image)[-1]
        target = torch.randn_like(output) if target is None else target
        loss = (output - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parameters)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    torch.save(network.state_dict(), tmp_path / 'network.pth')
    again, _ = build(name)
    mix_depthwise(again, kernel_sizes)
    again.load_state_dict(torch.load(tmp_path / 'network.pth', weights_only=True))
    network.eval(), again.eval()
    for ours, theirs in zip(features(again, image), features(network, image)):
        assert torch.equal(ours, theirs)


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(*[st.sampled_from([1, 3, 5])] * 2),
    groups=st.lists(st.sampled_from([5, 7, 9]), min_size=1, max_size=3),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
    padding=st.integers(0, 3),
    multiplier=st.sampled_from([1, 2]),
    bias=st.booleans(),
    kind=st.sampled_from(['plain', 'same', 'torch-same', 'valid']),
    size=st.tuples(st.integers(9, 14), st.integers(9, 14)),
)
def test_any_depthwise_convolution(kernel, groups, stride, dilation, padding, multiplier, bias, kind, size):
    if kind == 'same':
        kernel = tuple(max(k, stride) + (max(k, stride) + 1) % 2 for k in kernel)
    elif kind == 'torch-same':
        stride, padding = 1, 'same'
    elif kind == 'valid':
        padding = 'valid'
    cls = Conv2dSame if kind == 'same' else nn.Conv2d
    torch.manual_seed(0)
    conv = cls(6, 6 * multiplier, kernel, stride, padding, dilation=dilation, groups=6, bias=bias).double()
    network = nn.Sequential(conv)
    x = torch.randn(2, 6, *size, dtype=torch.double)
    expected = network(x)
    assert mix_depthwise(network, groups) == ['0']
    torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-10)


def stages():
    """Depthwise layers a-d whose outputs have stride 2, 4, 4, 8."""
    layers = [(2, 'a'), (2, 'b'), (1, 'c'), (2, 'd')]
    network = nn.Sequential()
    network.add_module('stem', nn.Conv2d(3, 6, 1))
    for stride, name in layers:
        network.add_module(name, nn.Conv2d(6, 6, 3, stride, 1, groups=6))
    return network


@pytest.mark.parametrize(
    ('where', 'expected'),
    [
        (None, ['a', 'b', 'c', 'd']),
        (dict(name='[ab]'), ['a', 'b']),
        (dict(name=['a', 'd*']), ['a', 'd']),
        (dict(stride=1), ['c']),
        (dict(stride=2, name='[!a]'), ['b', 'd']),
        (dict(stage=0), ['b', 'c']),
        (dict(stage=(-1, 1)), ['a', 'd']),
        (dict(stage=0, stride=1), ['c']),
        (dict(resolution=range(8, 17), input_size=64), ['b', 'c', 'd']),
        (dict(resolution=112), ['a']),
    ],
)
def test_where(where, expected):
    network = stages().train()
    assert mix_depthwise(network, (3, 5), where=where) == expected
    assert [name for name, m in network.named_children() if isinstance(m, MixConv2d)] == expected
    assert network.training and all(module.training for module in network.modules())


def test_type_mode_and_frozen_weights_are_kept():
    network = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6, dtype=torch.bfloat16).requires_grad_(False))
    network.eval()
    mix_depthwise(network, (3, 5))
    for parameter in network.parameters():
        assert parameter.dtype == torch.bfloat16 and not parameter.requires_grad
    assert not any(module.training for module in network.modules())


def test_a_shared_layer_stays_shared():
    shared = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    network = nn.ModuleDict(dict(a=nn.Sequential(shared), b=nn.Sequential(shared), c=shared))
    assert mix_depthwise(network, (3, 5)) == ['a.0']
    assert isinstance(network['c'], MixConv2d)
    assert network['a'][0] is network['b'][0] is network['c']


def test_kernels_are_cropped_only_on_request():
    network = nn.Sequential(nn.Conv2d(6, 6, (7, 3), padding=(3, 1), groups=6))
    weight = network[0].weight.detach().clone()
    with pytest.raises(ValueError, match=r'layer 0: a \(7, 3\) kernel does not fit .* allow_crop=True'):
        mix_depthwise(network, (3, 5))
    assert isinstance(network[0], nn.Conv2d)
    mix_depthwise(network, (3, 5), allow_crop=True)
    three, five = (conv.weight for conv in network[0].convs)
    assert torch.equal(three, weight[:3, :, 2:5])
    assert torch.equal(five[..., 1:4], weight[3:, :, 1:6]) and five[..., 0].abs().sum() == 0
    assert network(torch.randn(1, 6, 9, 9)).shape == (1, 6, 9, 9)


class Subclass(nn.Conv2d):
    pass


@pytest.mark.parametrize(
    ('network', 'arguments', 'message'),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 3)), {}, 'Sequential has no depthwise convolution: there is nothing to replace'),
        (nn.Conv2d(6, 6, 3, groups=6), {}, 'is itself a convolution'),
        (nn.Sequential(Subclass(6, 6, 3, groups=6)), {}, 'layer 0: a Subclass may compute more'),
        (nn.Sequential(nn.Conv2d(6, 6, 2, groups=6)), {}, 'is even'),
        (nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1, groups=6, padding_mode='reflect')), {}, "padding_mode='reflect'"),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 3, groups=6))), {}, 'parametris'),
        (nn.Sequential(MixConv2d(6, 6, (3, 5), dilated=True)), {}, 'dilated'),
        (nn.Sequential(nn.Conv2d(6, 6, 3, groups=6)), dict(kernel_sizes=4), 'must be odd'),
        (stages(), dict(where=dict(name='layer*')), 'selects none of the 4 depthwise convolutions: a, b, c, d'),
        (stages(), dict(where=dict(names='a')), 'unknown names; known are name, stride'),
        (nn.Sequential(nn.Conv2d(6, 6, 3, groups=6)), dict(where=dict(stage=1)), 'pass its backbone'),
    ],
)
def test_impossible_replacements_are_refused(network, arguments, message):
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match=message) as error:
        mix_depthwise(network, **arguments)
    assert '\n' not in str(error.value)
    assert before.keys() == network.state_dict().keys()
