"""Tests that every backbone must pass, and tests of single ones."""

import itertools

import pytest
import torch
from helpers import import_timm
from mmengine.config import Config
from torch import nn

from mixdet.backbones import MixNet, MobileNetV1, MobileNetV2
from mixdet.backbones.mixnet import scale_depth
from mixdet.registry import MODELS

# timm 1.0.31's parameter counts, ImageNet classifier included; the paper prints 4.1M, 5.0M, 7.3M
TIMM_PARAMETERS = {'s': 4_134_606, 'm': 5_014_382, 'l': 7_329_252, 'xl': 11_896_768}
CLASSIFIER = 1536 * 1000 + 1000
NETWORKS = {
    'v1': dict(type='mixdet.MobileNetV1', widen_factor=0.25),
    'v1-mixconv357': dict(type='mixdet.MobileNetV1', widen_factor=0.25, kernel_sizes=(3, 5, 7)),
    'v2': dict(type='mixdet.MobileNetV2', widen_factor=0.25),
    'v2-mixconv35': dict(type='mixdet.MobileNetV2', widen_factor=0.25, kernel_sizes=(3, 5)),
    'v2-exp-dilated': dict(
        type='mixdet.MobileNetV2', widen_factor=0.25, kernel_sizes=(3, 5, 7), split='exponential', dilated=True
    ),
    'mixnet-s': dict(type='mixdet.MixNet', arch='s', widen_factor=0.5),
    'mixnet-m': dict(type='mixdet.MixNet', arch='m', widen_factor=0.5),
}
network = pytest.mark.parametrize('name', NETWORKS)


def build(name, **changes):
    torch.manual_seed(0)
    return MODELS.build({**NETWORKS[name], **changes})


def outputs_of(name):
    return (0, 1, 2, 3) if 'v1' in name else (0, 1, 2, 'expansion', 3, 'head')


@network
@pytest.mark.parametrize('padding', ['symmetric', 'same'])
@pytest.mark.parametrize('size', [(64, 96), (75, 50)])
def test_features_are_as_declared(name, padding, size):
    model = build(name, out_indices=outputs_of(name), padding=padding).eval()
    features = model(torch.randn(2, 3, *size))
    assert len(features) == len(model.out_channels) == len(model.out_strides)
    for feature, channels, stride in zip(features, model.out_channels, model.out_strides):
        assert tuple(feature.shape) == (2, channels, *(-(-side // stride) for side in size))


@network
def test_every_parameter_gets_a_gradient(name):
    model = build(name, out_indices=outputs_of(name))
    sum(feature.square().mean() for feature in model(torch.randn(2, 3, 64, 64))).backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert without == []


@network
def test_checkpointing_does_not_change_gradients(name):
    x = torch.randn(2, 3, 64, 64)
    gradients = []
    for with_cp in (False, True):
        model = build(name, with_cp=with_cp)
        sum(feature.mean() for feature in model(x)).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients):
        torch.testing.assert_close(plain, checkpointed)


@network
@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 4])
def test_frozen_stages_do_not_change(name, frozen_stages):
    model = build(name, frozen_stages=frozen_stages).train()
    parts = [model.stem, *model.stages]
    before = [{key: value.clone() for key, value in part.state_dict().items()} for part in parts]
    optimizer = (
        torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1) if frozen_stages < 4 else None
    )
    loss = sum(feature.square().mean() for feature in model(torch.randn(2, 3, 64, 64)))
    if optimizer:
        loss.backward()
        optimizer.step()
    for i, (part, old) in enumerate(zip(parts, before)):
        changed = [key for key, value in part.state_dict().items() if not torch.equal(value, old[key])]
        assert bool(changed) == (i > frozen_stages), changed
        if i > frozen_stages:
            assert any('running_mean' in key for key in changed)


def test_norm_eval_keeps_statistics_but_trains_weights():
    model = build('mixnet-s', norm_eval=True).train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms) and model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_norm_and_activation_come_from_the_config():
    model = build('mixnet-s', norm_cfg=dict(type='GN', num_groups=2), act_cfg=dict(type='HSwish'))
    kinds = {type(module) for module in model.modules()}
    assert nn.GroupNorm in kinds and nn.BatchNorm2d not in kinds
    assert nn.Hardswish in kinds and nn.SiLU not in kinds and nn.ReLU not in kinds


@pytest.mark.parametrize(
    ('name', 'outputs'),
    [
        ('mixnet-s', r"\(0, 1, 2, 3, 'expansion', 'head'\)"),
        ('v2', r"\(0, 1, 2, 3, 'expansion', 'head'\)"),
        ('v1', r'\(0, 1, 2, 3\)'),  # has no head
    ],
)
def test_the_outputs_that_there_are_are_listed(name, outputs):
    with pytest.raises(ValueError, match=rf'out_indices=\(9,\): \w+ has the outputs {outputs}$'):
        build(name, out_indices=(9,))


def test_stages_beyond_the_deepest_output_are_not_built():
    assert len(build('v2', out_indices=(0, 1)).stages) == 2
    assert build('v2', out_indices=(3,)).head is None


def test_init_cfg_reaches_every_convolution():
    model = build('v2', out_indices=('expansion', 'head'), init_cfg=dict(type='Constant', layer='Conv2d', val=0.25))
    model.init_weights()
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(weights) > 50 and all((weight == 0.25).all() for weight in weights)


@pytest.mark.parametrize('arch', TIMM_PARAMETERS)
def test_mixnet_has_timms_parameter_count(arch):
    model = MixNet(arch, out_indices=('head',))
    assert sum(parameter.numel() for parameter in model.parameters()) + CLASSIFIER == TIMM_PARAMETERS[arch]


def structure(network):
    """Depthwise convolutions, 1x1 convolutions, squeeze-and-excitations and activations, each in order."""
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    depthwise = [(conv.kernel_size, conv.stride, conv.in_channels) for conv in convs if conv.groups == conv.in_channels]
    squeeze = [(conv.in_channels, conv.out_channels) for conv in convs if conv.bias is not None]
    # timm builds a grouped 1x1 convolution as several
    mixed = [module for module in network.modules() if type(module).__name__ == 'MixedConv2d']
    split = {part: module for module in mixed for part in module.children()}
    pointwise = []
    for _, parts in itertools.groupby((c for c in convs if c.kernel_size == (1, 1)), key=lambda c: split.get(c, c)):
        parts = list(parts)
        widths = (sum(conv.in_channels for conv in parts), sum(conv.out_channels for conv in parts))
        pointwise.append((*widths, len(parts) * parts[0].groups))
    activations = [type(m).__name__ for m in network.modules() if isinstance(m, (nn.ReLU, nn.SiLU))]
    return dict(depthwise=depthwise, squeeze=squeeze, pointwise=pointwise, activations=activations)


@pytest.mark.parametrize('arch', TIMM_PARAMETERS)
def test_mixnet_against_live_timm(arch):
    peer = import_timm().create_model(f'mixnet_{arch}')
    assert sum(parameter.numel() for parameter in peer.parameters()) == TIMM_PARAMETERS[arch]
    assert structure(MixNet(arch, out_indices=('head',))) == structure(peer)


def test_mixnets_activations():
    """ReLU in the stem, the first three blocks and the head; Swish in the 13 blocks with squeeze-and-excitation."""
    found = structure(MixNet('s', out_indices=('head',)))['activations']
    assert found == ['ReLU'] * (1 + 1 + 2 + 2) + ['SiLU'] * (13 * 3) + ['ReLU']


def test_defaults_of_batch_norm():
    """TensorFlow's epsilon, and in MixNet the momentum of its official code, which is one minus TensorFlow's."""
    for name, expected in (('v1', (0.001, 0.1)), ('v2', (0.001, 0.1)), ('mixnet-s', (0.001, 0.01))):
        norms = [module for module in build(name).modules() if isinstance(module, nn.BatchNorm2d)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {expected}


@pytest.mark.parametrize(
    ('cls', 'widen_factor', 'expected'),
    [
        (MobileNetV1, 0.1, (12, 25, 51, 102)),
        (MobileNetV1, 0.75, (96, 192, 384, 768)),
        (MobileNetV2, 0.5, (16, 16, 48, 160, 1280)),
        (MobileNetV2, 1.4, (32, 48, 136, 448, 1792)),
        (MixNet, 0.5, (16, 24, 64, 104, 1536)),
    ],
)
def test_widths(cls, widen_factor, expected):
    """Multiples of 8 in MobileNetV2 and MixNet, whose heads do not shrink."""
    outputs = (0, 1, 2, 3) if cls is MobileNetV1 else (0, 1, 2, 3, 'head')
    model = cls(widen_factor=widen_factor, out_indices=outputs)
    assert model.out_channels == expected
    if cls is MobileNetV1 and widen_factor == 0.1:
        assert model.stem[0].out_channels == 8  # and not 3


@pytest.mark.parametrize(('arch', 'expansion'), [('s', 720), ('m', 720), ('l', 960)])
def test_mixnet_outputs_for_ssdlite(arch, expansion):
    model = MixNet(arch, out_indices=('expansion', 'head'))
    assert model.out_channels == (expansion, 1536) and model.out_strides == (16, 32)


def test_mobilenet_outputs_for_ssdlite():
    v1, v2 = MobileNetV1(out_indices=(2, 3)), MobileNetV2(out_indices=('expansion', 'head'))
    assert (v1.out_channels, v1.out_strides) == ((512, 1024), (16, 32))
    assert (v2.out_channels, v2.out_strides) == ((576, 1280), (16, 32))


def test_the_expansion_is_the_input_of_the_stride_32_depthwise():
    model = build('v2', out_indices=('expansion', 3)).eval()
    seen = []
    model.stages[3][0].depthwise.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    expansion, _ = model(torch.randn(1, 3, 64, 64))
    assert torch.equal(seen[0], expansion)


def test_scale_depth_is_timms_rule():
    assert scale_depth([1, 3], 1.0) == [1, 3]
    assert scale_depth([1, 3], 1.2) == [1, 4]
    assert scale_depth([1], 1.2) == [1]


def depthwise_kernels(model):
    return [module.conv.kernel_size for module in model.modules() if type(module).__name__ == 'MixConvNormAct']


@pytest.mark.parametrize(('cls', 'layers'), [(MobileNetV1, 13), (MobileNetV2, 17)])
def test_single_layers_can_have_their_own_kernels(cls, layers):
    kernels = depthwise_kernels(cls(kernel_sizes=(3, 5), layer_kernel_sizes={2: 9, layers: (3, 5, 7, 9)}))
    assert len(kernels) == layers
    assert kernels[1] == ((9, 9),) and kernels[-1] == ((3, 3), (5, 5), (7, 7), (9, 9))
    assert set(kernels[2:-1]) == {((3, 3), (5, 5))}


def test_layer_kernel_sizes_from_a_json_config():
    """JSON and dumped configs have string keys."""
    cfg = Config(dict(type='mixdet.MobileNetV2', layer_kernel_sizes={'3': [3, 5]}))
    assert depthwise_kernels(MODELS.build(cfg))[2] == ((3, 3), (5, 5))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(type='mixdet.MobileNetV1', out_indices=('expansion',)), 'MobileNetV1 has the outputs'),
        (dict(type='mixdet.MobileNetV2', out_indices=(4,)), 'MobileNetV2 has the outputs'),
        (dict(type='mixdet.MobileNetV2', out_indices=()), 'out_indices='),
        (dict(type='mixdet.MobileNetV2', frozen_stages=5), 'frozen_stages=5: must be between -1 .* and 4'),
        (dict(type='mixdet.MobileNetV2', frozen_stages=-2), 'frozen_stages=-2'),
        (dict(type='mixdet.MobileNetV2', kernel_sizes=(3, 4)), 'kernel_sizes=\\(3, 4\\)'),
        (dict(type='mixdet.MobileNetV2', layer_kernel_sizes={18: 3}), 'depthwise layers 1 to 17'),
        (dict(type='mixdet.MobileNetV2', layer_kernel_sizes={1: 4}), 'layer_kernel_sizes\\[1\\]=4'),
        (dict(type='mixdet.MobileNetV1', padding='valid'), "padding='valid'"),
        (dict(type='mixdet.MixNet', arch='xxl'), "arch='xxl'"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(arguments)
