import copy
from pathlib import Path

import mmdet
import pytest
import torch
from helpers import tiny_detector
from mmcv.cnn import ConvModule
from mmengine.config import Config
from torch import nn

from mixdet.backbones import MixNet
from mixdet.deploy.fusing import fuse, optimize_for_inference
from mixdet.layers import Conv2dSame, MixConv2d, PrepackedConv2d
from mixdet.registry import MODELS


def random_statistics(model, seed=0):
    """Batch-norms as after training: nothing in them is 0 or 1."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def outputs(model, x, **kwargs):
    with torch.no_grad():
        out = model(x, **kwargs)
    return [level for part in out for level in part] if kwargs else list(out)


def assert_equal_networks(model, x, **kwargs):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    expected = outputs(model, x, **kwargs)
    for fused in (fuse(model, 'torch'), fuse(model, 'export'), optimize_for_inference(model)):
        for actual, wanted in zip(outputs(fused, x, **kwargs), expected):
            assert (actual - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize('padding', ['symmetric', 'same'])
@pytest.mark.parametrize('size', [(96, 96), (75, 90)])
def test_a_detector_gives_the_same(padding, size):
    model = random_statistics(tiny_detector(kernel_sizes=(3, 5, 7), padding=padding))
    assert_equal_networks(model, torch.randn(2, 3, *size), mode='tensor')
    for target, mixed in (('torch', True), ('export', False)):
        fused = fuse(model, target)
        kinds = {type(module) for module in fused.modules()}
        assert nn.BatchNorm2d not in kinds and (MixConv2d in kinds) == mixed
        assert not any(parameter.requires_grad for parameter in fused.parameters())


def test_mixnet_gives_the_same():
    model = random_statistics(MixNet('s', widen_factor=0.5, out_indices=(0, 1, 2, 3, 'head')))
    assert_equal_networks(model, torch.randn(2, 3, 64, 64))


@pytest.mark.filterwarnings('ignore:Unnecessary conv bias')
def test_dilated_multiplied_and_biased_layers():
    torch.manual_seed(0)
    for dilated, kwargs in ((True, {}), (False, dict(stride=2, padding='same')), (False, dict(padding=1, dilation=2))):
        block = ConvModule(
            6, 12, (3, 5, 7), **{'padding': 'symmetric', **kwargs}, groups=6, bias=True,
            conv_cfg=dict(type='mixdet.MixConv2d', dilated=dilated), norm_cfg=dict(type='BN'),
        )  # fmt: skip
        model = random_statistics(nn.ModuleDict(dict(block=block)))
        x = torch.randn(1, 6, 17, 18)
        with torch.no_grad():
            for target in ('torch', 'export'):
                torch.testing.assert_close(fuse(model, target).block(x), block(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('config', 'size'),
    [('yolox/yolox_tiny_8xb8-300e_coco.py', (64, 96)), ('retinanet/retinanet_r18_fpn_1x_coco.py', (64, 64))],
)
def test_detectors_of_mmdetection_give_the_same(config, size):
    """A CSPDarknet with SiLU, and a ResNet whose batch-norms are not in ConvModules."""
    cfg = Config.fromfile(Path(mmdet.__file__).with_name('.mim') / 'configs' / config).model
    cfg.backbone.pop('init_cfg', None)
    model = random_statistics(MODELS.build(cfg))
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected = [level for part in model(x, mode='tensor') for level in part]
        for actual, wanted in zip(outputs(optimize_for_inference(model), x, mode='tensor'), expected):
            assert (actual - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_norms_without_statistics_stay():
    cfg = Config(
        dict(type='mmdet.FPN', in_channels=[8, 8], out_channels=8, num_outs=2, norm_cfg=dict(type='GN', num_groups=2))
    )
    model = MODELS.build(cfg).eval()
    features = [torch.randn(1, 8, 8, 8), torch.randn(1, 8, 4, 4)]
    for a, b in zip(fuse(model)(features), model(features)):
        assert torch.equal(a, b)
    assert sum(isinstance(module, nn.GroupNorm) for module in fuse(model).modules()) == 4


@pytest.mark.parametrize('act', ['ReLU', 'ReLU6', 'SiLU'])
def test_convolutions_are_prepacked_with_their_activation(act):
    model = random_statistics(
        nn.Sequential(
            ConvModule(4, 8, 3, stride=2, padding=1, norm_cfg=dict(type='BN'), act_cfg=dict(type=act)),
            ConvModule(8, 8, 1, norm_cfg=dict(type='BN'), act_cfg=dict(type='LeakyReLU')),
            nn.Conv2d(8, 4, 3, padding=1, padding_mode='reflect'),
            nn.Conv2d(4, 4, 3, padding='same'),
        )
    )
    fused = fuse(model)
    kinds = [type(module) for module in (fused[0].conv, fused[1].conv, fused[2], fused[3])]
    assert kinds == [PrepackedConv2d, PrepackedConv2d, nn.Conv2d, nn.Conv2d]
    assert [block.with_activation for block in fused[:2]] == [False, True]
    x = torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-5)


def test_groups_of_mixed_convolutions_and_hooked_ones_stay():
    """Groups are the operator's to compute; spectral norm puts in a new weight before every call."""
    hooked = nn.utils.spectral_norm(nn.Conv2d(6, 6, 1))
    model = nn.Sequential(MixConv2d(6, 6, (3, 5)), hooked).eval()
    fused = fuse(model)
    assert [type(conv) for conv in (*fused[0].convs, fused[1])] == [nn.Conv2d] * 3


def test_other_targets_are_refused():
    with pytest.raises(ValueError, match="target='gpu': must be one of"):
        fuse(nn.Identity(), 'gpu')


def test_an_export_starts_from_the_original():
    """The activations that fuse() moves into convolutions would be lost in an export."""
    mixed = ConvModule(
        6, 6, (3, 5), padding='symmetric', groups=6, conv_cfg=dict(type='mixdet.MixConv2d'), norm_cfg=dict(type='BN')
    )
    for block in (mixed, ConvModule(6, 6, 1, norm_cfg=dict(type='BN'))):
        fused = fuse(block)
        with pytest.raises(ValueError, match='is fused already; give the original'):
            fuse(nn.Sequential(fused), 'export')
        assert not fuse(fused).with_activation  # but for PyTorch there is nothing left to do


@pytest.mark.parametrize('kernels', [(1, 5), (5, 1), ((1, 3), (3, 3)), ((3, 1), (3, 3))])
@pytest.mark.parametrize('size', [(8, 8), (7, 8), (9, 9)])
def test_kernels_smaller_than_the_stride_stay_apart_in_same_padding(kernels, size):
    """TensorFlow pads a 1x1 kernel of stride 2 by nothing, and not by -1 as would put it in the middle of a 5x5."""
    mixed = MixConv2d(6, 6, kernels, stride=2, padding='same')
    fused = fuse(nn.Sequential(mixed), 'export')
    assert type(fused[0]) is MixConv2d
    x = torch.randn(1, 6, *size)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), mixed(x))


@pytest.mark.parametrize(
    ('kernels', 'options', 'kind'),
    [
        ((1, 5), dict(padding='same'), Conv2dSame),
        ((3, 5), dict(padding='same', stride=2), Conv2dSame),
        ((3, 5), dict(padding='same', stride=3), Conv2dSame),
        ((1, 3), dict(padding='same', stride=2, dilation=2), MixConv2d),
        ((1, 5), dict(stride=2), nn.Conv2d),
        ((1, (3, 7)), dict(stride=2), nn.Conv2d),
        ((3, 7, 5), dict(padding=(2, 1)), nn.Conv2d),
        ((5,), dict(dilated=True), nn.Conv2d),
        ((5,), dict(padding='same', bias=True), Conv2dSame),
    ],
)
def test_mixed_convolutions_in_exports(kernels, options, kind):
    mixed = MixConv2d(6, 12, kernels, **options)
    fused = fuse(nn.Sequential(mixed), 'export')
    assert type(fused[0]) is kind
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert any(name.endswith('bias') for name, _ in fused.named_parameters()) == options.get('bias', False)
    for size in ((8, 8), (9, 11)):
        x = torch.randn(1, 6, *size)
        with torch.no_grad():
            torch.testing.assert_close(fused(x), mixed(x))


def test_a_copy_is_fused_in_evaluation_mode():
    block = random_statistics(
        ConvModule(4, 4, 3, norm_cfg=dict(type='BN'), act_cfg=dict(type='LeakyReLU'), inplace=False)
    ).train()
    before = copy.deepcopy(block.state_dict())
    fused = fuse(block)
    assert block.training and block.with_norm and not block.activate.inplace and type(block.conv) is nn.Conv2d
    assert all(torch.equal(value, before[key]) for key, value in block.state_dict().items())
    assert not fused.training and fused.norm is None and 'bn' not in dict(fused.named_children())
    assert fused.activate.inplace
    assert all(parameter.requires_grad for parameter in block.parameters())


@pytest.mark.parametrize(
    ('norm', 'reason'),
    [
        (dict(norm_cfg=dict(type='BN', track_running_stats=False)), 'statistics of the batch'),
        (dict(norm_cfg=dict(type='IN')), 'no batch-norm'),
        (dict(norm_cfg=dict(type='BN'), order=('norm', 'conv', 'act')), 'before the convolution'),
        (dict(norm_cfg=dict(type='BN'), order=('conv', 'act', 'norm')), 'after the activation'),
        (dict(norm_cfg=dict(type='BN'), with_spectral_norm=True), 'the weight is computed at every call'),
    ],
)
def test_norms_that_cannot_be_folded_stay(norm, reason):
    block = random_statistics(ConvModule(4, 4, 3, **norm))
    fused = fuse(block)
    assert fused.with_norm and fused.with_activation, reason
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), block(x))


@pytest.mark.filterwarnings('ignore:Unnecessary conv bias')
def test_a_norm_without_scale_and_shift_is_folded():
    block = random_statistics(ConvModule(4, 4, 3, bias=True, norm_cfg=dict(type='BN')))
    block.bn.weight = block.bn.bias = None
    fused = fuse(block)
    assert not fused.with_norm
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), block(x))


@pytest.mark.parametrize('target', ['torch', 'export'])
def test_a_group_with_a_hook_keeps_the_mixed_convolution(target):
    """Spectral norm computes the weight of a group before every call: what is folded into it would be lost."""
    block = ConvModule(
        6, 6, (3, 5), padding='symmetric', groups=6, conv_cfg=dict(type='mixdet.MixConv2d'), norm_cfg=dict(type='BN')
    )
    nn.utils.spectral_norm(block.conv.convs[0])
    fused = fuse(random_statistics(block), target)
    assert fused.with_norm and type(fused.conv) is MixConv2d
    x = torch.randn(1, 6, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), block(x))


def test_activations_before_the_convolution_stay():
    block = ConvModule(4, 4, 3, order=('act', 'conv', 'norm'))
    fused = fuse(block)
    assert fused.with_activation and fused.conv.activation is None
    x = torch.randn(1, 4, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(fused(x.clone()), block.eval()(x.clone()))


def test_only_models_on_a_cpu_are_optimized():
    for model in (nn.Identity(), nn.Conv2d(1, 1, 1, device='meta'), nn.DataParallel(nn.Conv2d(1, 1, 1))):
        assert optimize_for_inference(model) is model
    fused = optimize_for_inference(nn.Conv2d(2, 2, 3))
    assert type(fused) is PrepackedConv2d and fused.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_convolution_that_changes_its_weight_keeps_its_norm():
    """mmcv's ConvWS standardises its weight at every call: a factor folded into that would be lost."""
    block = random_statistics(ConvModule(4, 4, 3, conv_cfg=dict(type='ConvWS'), norm_cfg=dict(type='BN')))
    fused = fuse(block)
    assert fused.with_norm
    x = torch.randn(1, 4, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), block(x))
