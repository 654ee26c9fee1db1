import copy

import pytest
import torch
from helpers import detector_batch, tiny_detector

from mixdet.layers import mix_depthwise
from mixdet.registry import MODELS

BACKBONE = dict(type='MobileNetV2', widen_factor=0.25, out_indices=(1, 2, 4, 7))


def wrap(**changes):
    torch.manual_seed(0)
    return MODELS.build(dict(type='mixdet.MixDepthwise', backbone=copy.deepcopy(BACKBONE), **changes))


def test_layers_are_replaced_and_attributes_pass_through():
    model = wrap(kernel_sizes=(3, 5), where=dict(stride=1))
    assert len(model.mixed_layers) == 13 and model.mixed_layers[0].startswith('layer1')
    assert model.widen_factor == 0.25
    with pytest.raises(AttributeError, match='no_such'):
        _ = model.no_such
    assert [feature.shape[-1] for feature in model(torch.randn(1, 3, 64, 64))] == [16, 8, 4, 2]
    assert copy.deepcopy(model).mixed_layers == model.mixed_layers


def test_pretrained_weights_are_those_of_the_unchanged_network(tmp_path):
    torch.manual_seed(1)
    plain = MODELS.build(BACKBONE)
    torch.save(dict(state_dict=plain.state_dict()), tmp_path / 'plain.pth')
    config = dict(BACKBONE, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'plain.pth')))
    model = MODELS.build(dict(type='mixdet.MixDepthwise', backbone=config))
    model.init_weights()
    plain.eval(), model.eval()
    image = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(model(image), plain(image)):
        assert float(((ours - theirs).abs().max() / theirs.abs().max()).detach()) <= 1e-5
    mix_depthwise(plain)
    assert {f'backbone.{name}' for name in plain.state_dict()} == set(model.state_dict())


def test_in_a_detector():
    """SSDLite wires its neck from the wrapped backbone's channels."""
    model = tiny_detector()
    config = dict(type='mixdet.MobileNetV2', widen_factor=0.25, out_indices=('expansion', 'head'))
    wrapped = MODELS.build(dict(type='mixdet.MixDepthwise', backbone=config, kernel_sizes=(3, 5, 7)))
    assert wrapped.out_channels == model.backbone.out_channels
    model.backbone = wrapped
    model.init_weights()
    data = model.data_preprocessor(detector_batch(), training=True)
    losses = model.loss(data['inputs'], data['data_samples'])
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_backbone_without_depthwise_convolutions():
    with pytest.raises(ValueError, match='ResNet has no depthwise convolution'):
        MODELS.build(dict(type='mixdet.MixDepthwise', backbone=dict(type='ResNet', depth=18)))
