import pytest
import torch
from helpers import tiny_detector
from mmcv.cnn import ConvModule
from mmengine.config import Config
from torch import nn

from mixdet.backbones import MixNet
from mixdet.deploy.fusing import fuse
from mixdet.layers import MixConv2d, PrepackedConv2d
from mixdet.registry import MODELS


def random_statistics(model, seed=0):
    """Batch-norms as after training: nothing in them is 0 or 1."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
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
    for target in ('torch', 'export'):
        fused = fuse(model, target)
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


def test_a_detector_of_mmdetection():
    """Norms that nothing can be folded into stay: mmdet's ResNet has its own, GroupNorm has no statistics."""
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
            nn.Conv2d(8, 4, 1, padding_mode='reflect'),
        )
    )
    fused = fuse(model)
    assert [type(module) for module in (fused[0].conv, fused[1].conv, fused[2])] == [
        PrepackedConv2d,
        PrepackedConv2d,
        nn.Conv2d,
    ]
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


def test_a_convolution_that_changes_its_weight_keeps_its_norm():
    """mmcv's ConvWS standardises its weight at every call: a factor folded into that would be lost."""
    block = random_statistics(ConvModule(4, 4, 3, conv_cfg=dict(type='ConvWS'), norm_cfg=dict(type='BN')))
    fused = fuse(block)
    assert fused.with_norm
    x = torch.randn(1, 4, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), block(x))
