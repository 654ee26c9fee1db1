import hashlib

import pytest
import torch
from helpers import shared_path
from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit
from torch import nn

from mixdet.report.start import describe_start, weight_sources
from mixdet.weights.conversions import convert, save_checkpoint


def network(init_cfg=None):
    """A detector whose backbone has ``init_cfg``."""
    model = BaseModule(init_cfg=[dict(type='Normal', layer='Conv2d')])
    model.backbone = BaseModule(init_cfg=init_cfg)
    model.neck = nn.Identity()
    return model


def test_from_scratch():
    for init_cfg in (None, [], dict(type='TruncNormal', layer='Conv2d', std=0.03)):
        assert weight_sources(network(init_cfg)) == []
    assert describe_start(dict(start=[])) == 'scratch'


@pytest.mark.parametrize('kind', ['Pretrained', 'mmengine.Pretrained', PretrainedInit])
def test_a_pretrained_backbone(kind):
    (source,) = weight_sources(network([dict(type=kind, checkpoint='torchvision://resnet50', prefix='backbone.')]))
    assert source == dict(part='backbone', file='torchvision://resnet50', prefix='backbone.')
    assert describe_start(dict(start=[source])) == 'backbone: torchvision://resnet50 (its backbone alone)'


def test_files_of_one_name_are_told_apart(tmp_path):
    path = tmp_path / 'weights.pth'
    texts = []
    for value in (0.0, 1.0):
        torch.save(dict(state_dict=dict(a=torch.full((3,), value))), path)
        (source,) = weight_sources(network(dict(type='Pretrained', checkpoint=str(path))))
        assert source['sha256'] == hashlib.sha256(path.read_bytes()).hexdigest()
        texts.append(describe_start(dict(start=[source])))
    assert texts[0] != texts[1] and all(text.startswith(f'backbone: {path} (sha256 ') for text in texts)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_conversion_and_its_source(tmp_path, suffix):
    if suffix == '.safetensors':
        pytest.importorskip('safetensors')
    checkpoint = convert(shared_path('weights', 'mobilenet_v2-b0353104.pth'), 'torchvision_mobilenetv2')
    checkpoint['meta'].update(licence='BSD-3', folded=[], restored=['a', 'b'])
    path = tmp_path / f'imagenet{suffix}'
    save_checkpoint(checkpoint, path)
    sources = weight_sources(network(dict(type='Pretrained', checkpoint=str(path))), str(path))
    text = f'{path} (converted from mobilenet_v2-b0353104.pth, as torchvision_mobilenetv2, licence BSD-3, '
    text += '2 batch-norms with restored statistics, sha256 '
    assert [source['part'] for source in sources] == ['model', 'backbone']
    assert describe_start(dict(start=sources)).count(text) == 2


def test_a_checkpoint_of_a_training(tmp_path):
    path = tmp_path / 'epoch_3.pth'
    torch.save(dict(state_dict={}, meta=dict(experiment_name='net_20260101', epoch=3)), path)
    assert 'net_20260101, epoch 3' in describe_start(dict(start=weight_sources(network(), str(path))))


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_bytes(b'no checkpoint')
    (source,) = weight_sources(network(), str(path))
    assert 'is corrupt' in describe_start(dict(start=[source]))
    assert weight_sources(network(), 'gone.pth') == [dict(part='model', file='gone.pth')]


def test_cards_of_earlier_versions():
    assert describe_start(dict(started_from='a.pth')) == 'a.pth'
    assert describe_start(dict(started_from='')) == describe_start({}) == 'not recorded'
