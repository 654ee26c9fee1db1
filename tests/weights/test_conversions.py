import json

import numpy as np
import pytest
import torch
from helpers import import_timm

from mixdet.engine.checkpoint import read_checkpoint
from mixdet.errors import UserError
from mixdet.weights.conversions import CONVERSIONS, convert, save_checkpoint


@pytest.mark.parametrize('name', ['mixnet_s', 'tf_mixnet_m'])
def test_live_model_of_timm(name):
    model = import_timm().create_model(name)
    checkpoint = convert(model, name.removeprefix('tf_'))
    assert torch.equal(checkpoint['state_dict']['stem.0.conv.weight'], model.conv_stem.weight)
    assert checkpoint['meta']['skipped'] == ['classifier.weight', 'classifier.bias']


def test_both_formats_hold_the_same(tmp_path):
    pytest.importorskip('safetensors')
    torch.manual_seed(0)
    checkpoint = dict(
        state_dict={'a': torch.randn(3, 2).t(), 'n': torch.tensor(3)}, meta=dict(kind='x', skipped=['b', 'c'])
    )
    for name in ('a.pth', 'a.safetensors'):
        save_checkpoint(checkpoint, tmp_path / name)
        read = read_checkpoint(tmp_path / name)
        assert read['state_dict'].keys() == checkpoint['state_dict'].keys()
        assert all(torch.equal(read['state_dict'][key], value) for key, value in checkpoint['state_dict'].items())
        assert read['meta']['kind'] == 'x'
    assert json.loads(read['meta']['skipped']) == ['b', 'c']
    with pytest.raises(UserError, match='must end in .pth or .safetensors'):
        save_checkpoint(checkpoint, tmp_path / 'a.txt')


def test_unsuitable_sources_are_refused_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez('other.npz', a=np.zeros(3))
    np.savez('pickled.npz', a=np.array([{}], dtype=object))
    (tmp_path / 'broken.npz').write_bytes((tmp_path / 'other.npz').read_bytes()[:60])
    torch.save({'a': torch.zeros(1)}, 'other.pth')
    (tmp_path / 'a.txt').write_text('')
    for source, kind, message in (
        ('gone.npz', 'mobilenetv1', 'gone.npz does not exist'),
        ('a.txt', 'mobilenetv1', 'a.txt: unknown file type, must be one of .npz, .pb'),
        ('other.npz', 'ssdlite_mobilenetv1', 'missing in the source: FeatureExtractor/MobilenetV1/Conv2d_0/weights'),
        ('pickled.npz', 'mobilenetv1', 'pickled.npz is not a NumPy archive'),
        ('broken.npz', 'mobilenetv1', 'broken.npz is not a NumPy archive'),
        ('other.pth', 'mixnet_s', 'missing in the source: conv_stem.weight'),
    ):
        with pytest.raises(UserError, match=message):
            convert(source, kind)
    with pytest.raises(UserError, match='only MobileNets can be grown'):
        convert('other.pth', 'mixnet_s', kernel_sizes=7)


@pytest.mark.parametrize('kind', CONVERSIONS)
def test_every_kind_needs_every_tensor(kind):
    with pytest.raises(UserError, match=r'these weights do not fit the model: \d+ tensors are missing'):
        convert(torch.nn.Module(), kind)
