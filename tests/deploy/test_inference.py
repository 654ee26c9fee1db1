import numpy as np
import pytest
import torch
from helpers import coco_checkpoint, shared_path, tiny_checkpoint
from torch import nn

from mixdet import Detector
from mixdet.errors import UserError


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    return coco_checkpoint(tmp_path_factory.mktemp('coco'))


@pytest.fixture
def tiny(tmp_path):
    return tiny_checkpoint(tmp_path)


@pytest.mark.parametrize('fuse', [True, False])
def test_detections_are_mmdetections_own(coco, fuse):
    from mmdet.apis import inference_detector, init_detector

    images = sorted(shared_path('data', 'coco-mini', 'val2017').glob('*.jpg'))[:3]
    ours = Detector(*coco, score_thr=0.3, fuse=fuse).predict(images)
    peer = init_detector(str(coco[0]), str(coco[1]), device='cpu')
    assert sum(map(len, ours)) > 10
    for found, sample in zip(ours, inference_detector(peer, [str(path) for path in images])):
        theirs = sample.pred_instances[sample.pred_instances.scores >= 0.3]
        assert [one.label for one in found] == theirs.labels.tolist()
        np.testing.assert_allclose([one.box for one in found], theirs.bboxes, atol=1e-2)
        np.testing.assert_allclose([one.score for one in found], theirs.scores, atol=1e-5)


def test_the_network_is_fused_on_request(tiny):
    """Fused by default: the results are the same up to rounding, the operators are not."""
    fused, plain = Detector(*tiny, score_thr=0.0), Detector(*tiny, score_thr=0.0, fuse=False)
    norms = [sum(isinstance(module, nn.BatchNorm2d) for module in one.model.modules()) for one in (fused, plain)]
    assert norms[0] == 0 < norms[1]
    weight = fused.model.backbone.stem[0].conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    assert plain.model.backbone.stem[0].conv.weight.is_contiguous()
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    for actual, wanted in zip(network_outputs(fused, image), network_outputs(plain, image)):
        assert (actual - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def network_outputs(detector, image):
    with torch.inference_mode():
        scores, deltas = detector.model(detector.preprocess([image]), mode='tensor')
    return [*scores, *deltas]


def test_files_and_arrays_are_the_same(coco):
    from mixdet.deploy.images import read_image

    path = sorted(shared_path('data', 'coco-mini', 'val2017').glob('*.jpg'))[0]
    detector = Detector(*coco)
    found = detector(path)
    assert found == detector(read_image(path)) and found[0].score >= found[-1].score >= 0.3
    height, width = read_image(path).shape[:2]
    assert all(0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height for _, _, _, (x1, y1, x2, y2) in found)


@pytest.mark.parametrize('shape', [(40, 60), (40, 60, 1), (40, 60, 3), (40, 60, 4), (1, 1, 3), (1, 3000)])
def test_arrays_of_any_layout(tiny, shape):
    detector = Detector(*tiny, score_thr=0.0)
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = detector(array)
    assert all(one.name in detector.classes and one.label == detector.classes.index(one.name) for one in found)
    three = np.broadcast_to(array.reshape(*shape[:2], -1)[..., :3], (*shape[:2], 3))
    assert found == detector(np.ascontiguousarray(three))


def test_what_is_wrong_is_said(tiny, tmp_path):
    config, checkpoint = tiny
    detector = Detector(config, checkpoint)
    for array in (np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(UserError, match='an image array'):
            detector(array)
    with pytest.raises(UserError, match=r'gone.jpg: No such file'):
        detector('gone.jpg')
    with pytest.raises(UserError, match='gone.pth does not exist'):
        Detector(config, 'gone.pth')
    with pytest.raises(UserError, match='device cuda:99'):
        Detector(config, checkpoint, device='cuda:99')
    torch.save({}, tmp_path / 'other.pth')
    with pytest.raises(UserError, match='is not of this model'):
        Detector(config, tmp_path / 'other.pth')


def test_class_names_of_a_wrapped_data_set():
    from mmengine.config import Config

    from mixdet.deploy.inference import class_names

    for inner in (dict(type='CocoDataset', metainfo=dict(classes=('cat', 'dog'))), dict(type='VOCDataset')):
        cfg = Config(dict(test_dataloader=dict(dataset=dict(type='RepeatDataset', times=1, dataset=inner))))
        names = class_names(cfg)
        assert names == inner.get('metainfo', {}).get('classes', names) and names[0] in ('cat', 'aeroplane')
