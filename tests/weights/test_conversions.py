import numpy as np
import pytest
import torch
from helpers import import_timm, little_room, shared_path

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
        assert read['meta'] == checkpoint['meta']
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


def ssdlite_of(tmp_path, classes):
    """The arrays of TensorFlow's COCO detector, cut to its first classes, as a file."""
    arrays = dict(np.load(shared_path('weights', 'ssdlite_mobilenet_v2_coco.npz')))
    for name, value in arrays.items():
        if 'ClassPredictor/' in name:
            anchors = value.reshape(*value.shape[:-1], -1, 91)[..., : classes + 1]
            arrays[name] = anchors.reshape(*value.shape[:-1], -1)
    arrays['Postprocessor/Decode/scale'] = np.zeros(3)
    np.savez(tmp_path / 'own.npz', **arrays)
    return tmp_path / 'own.npz'


@pytest.mark.slow
def test_the_number_of_classes_is_read_from_the_file(tmp_path):
    path = ssdlite_of(tmp_path, 1)
    checkpoint = convert(path, 'ssdlite_mobilenetv2', names=['hand'])
    state, meta = checkpoint['state_dict'], checkpoint['meta']
    assert state['bbox_head.cls_convs.0.1.weight'].shape[0] == 3 * 2
    assert meta['dataset_meta'] == dict(classes=('hand',)) and meta['skipped'] == ['Postprocessor/Decode/scale']
    source = np.load(path)['BoxPredictor_0/ClassPredictor/biases'].reshape(3, 2)
    np.testing.assert_array_equal(state['bbox_head.cls_convs.0.1.bias'].reshape(3, 2), source[:, ::-1])
    with pytest.raises(UserError, match='2 class names were given, but the weights have 1 classes; name each'):
        convert(path, 'ssdlite_mobilenetv2', names=['a', 'b'])
    with pytest.raises(UserError, match='the label map has the id 5, but the weights have the ids 1 to 1'):
        convert(path, 'ssdlite_mobilenetv2', names={5: 'a'})


@pytest.mark.slow
def test_a_label_map_may_leave_ids_out(tmp_path):
    checkpoint = convert(ssdlite_of(tmp_path, 7), 'ssdlite_mobilenetv2', names={2: 'bicycle', 7: 'train'})
    assert checkpoint['meta']['dataset_meta'] == dict(classes=('bicycle', 'train'))
    source = np.load(tmp_path / 'own.npz')['BoxPredictor_3/ClassPredictor/biases'].reshape(6, 8)
    bias = checkpoint['state_dict']['bbox_head.cls_convs.3.1.bias'].reshape(6, 3)
    np.testing.assert_array_equal(bias, source[:, [2, 7, 0]])


def test_names_are_for_detectors():
    with pytest.raises(UserError, match='class names are for SSDLite detectors; mobilenetv1 has no classes'):
        convert(torch.nn.Module(), 'mobilenetv1', names=['a'])


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_no_file_is_replaced_and_none_is_half_written(tmp_path, name):
    pytest.importorskip('safetensors')
    checkpoint = dict(state_dict={'a': torch.zeros(5000)}, meta=dict(kind='x'))
    with little_room(1000), pytest.raises(UserError, match=f'{name} cannot be written: File too large'):
        save_checkpoint(checkpoint, tmp_path / name)
    assert not list(tmp_path.iterdir())
    (tmp_path / name).write_text('mine')
    with pytest.raises(UserError, match=f'{name} exists already'):
        save_checkpoint(checkpoint, tmp_path / name)
    assert (tmp_path / name).read_text() == 'mine'
