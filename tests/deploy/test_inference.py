import re
import sys

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from helpers import ROOT, coco_checkpoint, shared_path
from mmdet.datasets import VOCDataset
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn

from mixdet import Detection, Detector
from mixdet.datasets.demo import CLASSES
from mixdet.deploy.images import read_image
from mixdet.deploy.inference import _make_nms_agnostic, class_names, inference_transforms, to_array
from mixdet.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    return coco_checkpoint(tmp_path_factory.mktemp('coco'))


@pytest.mark.parametrize('fuse', [True, False])
def test_detections_are_mmdetections_own(coco, fuse):
    from mmdet.apis import inference_detector, init_detector

    images = sorted(shared_path('data', 'coco-mini', 'val2017').glob('*.jpg'))[:3]
    ours = Detector(*coco, score_thr=0.3, fuse=fuse).predict(images)
    with pytest.warns(UserWarning, match='dataset_meta or class names are not saved'):
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
        assert (actual - wanted).abs().max() <= 1e-4 * wanted.abs().max()


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'L', 'P'])
def test_pil_images_are_read_as_files_are(tmp_path, demo_images, mode):
    image = PIL.Image.fromarray(np.ascontiguousarray(demo_images[0][..., ::-1])).convert(mode)
    exif = PIL.Image.Exif()
    exif[274] = 6  # turned by 90 degrees
    image.save(tmp_path / 'a.png', exif=exif)
    with PIL.Image.open(tmp_path / 'a.png') as opened:
        found = to_array(opened)
    height, width = demo_images[0].shape[:2]
    assert found.shape == (width, height, 3) and found.flags.c_contiguous
    np.testing.assert_array_equal(found, np.rot90(np.asarray(image.convert('RGB'))[..., ::-1], -1))


def test_a_pil_image_of_another_depth_is_refused():
    with pytest.raises(UserError, match="not of mode 'I;16': convert it to RGB"):
        to_array(PIL.Image.new('I;16', (4, 4)))


def test_the_representation_says_what_it_detects(tiny):
    classes = ', '.join(CLASSES)
    assert repr(Detector(*tiny)) == f'Detector(SSDLite on cpu, 4 classes: {classes}; score_thr=0.3)'


def test_the_guides_measurement_runs(tiny, tmp_path, demo_images, monkeypatch, capsys):
    guide = (ROOT / 'docs/deploy.md').read_text()
    (script,) = [block for block in re.findall(r'```python\n(.*?)```', guide, re.DOTALL) if 'time_in_turns' in block]
    cv2.imwrite(str(tmp_path / 'a.png'), demo_images[0])
    monkeypatch.setattr(sys, 'argv', ['script.py', *map(str, tiny), str(tmp_path / 'a.png'), '1'])
    threads = []
    monkeypatch.setattr(torch, 'set_num_threads', threads.append)
    exec(script.replace('seconds=30, warmup=5', 'seconds=0'), {})
    assert threads == [1]
    line = r'(fuse=\w+): [\d.]+ ms \[[\d.]+, [\d.]+\], [\d.]+ ms of CPU time\n'
    assert re.findall(line, capsys.readouterr().out) == [
        'fuse=False',
        'fuse=True',
    ]


def network_outputs(detector, image):
    with torch.inference_mode():
        scores, deltas = detector.model(detector.preprocess([image]), mode='tensor')
    return [*scores, *deltas]


def test_files_and_arrays_are_the_same(coco):
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


def test_images_are_predicted_as_one_batch(tiny, demo_images):
    """Each with the result that it has alone."""
    detector = Detector(*tiny, score_thr=0.0)
    samples = detector.predict_samples(demo_images)
    assert [sample.img_id for sample in samples] == [0, 1, 2]
    for image, found in zip(demo_images, detector.predict(demo_images)):
        (alone,) = detector.predict([image])
        assert [one.label for one in found] == [one.label for one in alone] and len(found) == 10
        np.testing.assert_allclose([one.box for one in found], [one.box for one in alone], atol=1e-3)


def test_detections_are_sorted_and_start_at_the_threshold(tiny):
    detector = Detector(*tiny, score_thr=0.5)
    boxes = torch.arange(16.0).view(4, 4)
    found = InstanceData(bboxes=boxes, scores=torch.tensor([0.5, 0.25, 0.75, 0.5]), labels=torch.tensor([0, 1, 2, 3]))
    assert detector.detections(DetDataSample(pred_instances=found)) == [
        Detection('triangle', 2, 0.75, (8.0, 9.0, 10.0, 11.0)),
        Detection('disc', 0, 0.5, (0.0, 1.0, 2.0, 3.0)),
        Detection('star', 3, 0.5, (12.0, 13.0, 14.0, 15.0)),
    ]


def test_configs_are_paths_or_objects(tiny, demo_images):
    config, checkpoint = tiny
    detector = Detector(Config.fromfile(config), str(checkpoint), score_thr=0.0)
    assert detector.model.dataset_meta == dict(classes=('disc', 'square', 'triangle', 'star'))
    assert not detector.model.training and detector(demo_images[0]) == Detector(str(config), checkpoint, 'cpu', 0.0)(
        demo_images[0]
    )


def test_checkpoints_of_wrapped_models(tiny, tmp_path, demo_images):
    """DistributedDataParallel puts 'module.' before every name; a file may hold the weights alone, without counters."""
    config, checkpoint = tiny
    state = torch.load(checkpoint)['state_dict']
    expected = Detector(*tiny, score_thr=0.0)(demo_images[0])
    bare = {name: value for name, value in state.items() if not name.endswith('num_batches_tracked')}
    for content in (bare, dict(state_dict={f'module.{name}': value for name, value in state.items()})):
        torch.save(content, tmp_path / 'a.pth')
        assert Detector(config, tmp_path / 'a.pth', score_thr=0.0)(demo_images[0]) == expected


def test_bad_input(tiny, tmp_path):
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


def test_class_names_of_the_checkpoint_come_first():
    cfg = Config(dict(test_dataloader=dict(dataset=dict(type='CocoDataset', metainfo=dict(classes=['cat', 'dog'])))))
    for key in ('classes', 'CLASSES'):
        assert class_names(cfg, dict(meta=dict(dataset_meta={key: ['cow']}))) == ('cow',)
    for checkpoint in (None, {}, dict(meta={}), dict(meta=dict(dataset_meta=None)), dict(meta=dict(dataset_meta={}))):
        assert class_names(cfg, checkpoint) == ('cat', 'dog')
    for empty in (Config(), Config(dict(test_dataloader=dict(dataset=dict(type='CustomDataset'))))):
        with pytest.raises(UserError, match='contains the class names'):
            class_names(empty)


def test_pipelines_for_images_in_memory():
    load, annotations = dict(type='LoadImageFromFile', backend_args=None), dict(type='mmdet.LoadAnnotations')
    rest = [dict(type='Resize', scale=(32, 32)), dict(type='PackDetInputs')]
    dataset = dict(type='CocoDataset', pipeline=[load, rest[0], annotations, rest[1]])
    cached = dict(dataset, pipeline=[dict(type='mixdet.LoadCachedImage'), *dataset['pipeline'][1:]])
    for wrapped in (dataset, cached, dict(type='RepeatDataset', dataset=dataset)):
        transforms = inference_transforms(Config(dict(test_dataloader=dict(dataset=wrapped))))
        assert transforms == [dict(type='mmdet.LoadImageFromNDArray'), *rest]
    for pipeline in ([], rest):
        cfg = Config(dict(test_dataloader=dict(dataset=dict(dataset, pipeline=pipeline))))
        with pytest.raises(UserError, match='must begin with LoadImageFromFile'):
            inference_transforms(cfg)
    with pytest.raises(UserError, match='must begin with LoadImageFromFile'):
        inference_transforms(Config())


def test_class_names_of_a_wrapped_data_set():
    for inner in (
        dict(type=VOCDataset),
        dict(type='CocoDataset', metainfo=dict(classes=('cat', 'dog'))),
        dict(type='VOCDataset'),
    ):
        cfg = Config(dict(test_dataloader=dict(dataset=dict(type='RepeatDataset', times=1, dataset=inner))))
        names = class_names(cfg)
        assert names == inner.get('metainfo', {}).get('classes', names) and names[0] in ('cat', 'aeroplane')


def test_overlapping_boxes_of_all_classes_are_suppressed_on_request(tiny, demo_images):
    def overlaps(detector):
        boxes = [torch.tensor([one.box for one in found]).reshape(-1, 4) for found in detector.predict(demo_images)]
        ious = [bbox_overlaps(of_image, of_image).triu(1).max().item() for of_image in boxes]
        return max(ious)

    agnostic = Detector(*tiny, score_thr=0.0, agnostic_nms=True)
    limit = agnostic.cfg.model.test_cfg.nms.iou_threshold
    assert overlaps(agnostic) <= limit + 1e-4 < 0.7 < overlaps(Detector(*tiny, score_thr=0.0))
    assert 'class_agnostic' not in agnostic.cfg.model.test_cfg.nms  # the config stays as it is


def test_where_nms_is_made_class_agnostic():
    rcnn = dict(nms=dict(type='nms'), mask=dict(nms=dict(type='soft_nms')))
    model = dict(roi_head=dict(nms=dict(type='other')), test_cfg=dict(rpn=dict(nms=dict(type='nms')), rcnn=rcnn))
    assert _make_nms_agnostic(model)
    assert rcnn['nms']['class_agnostic'] and rcnn['mask']['nms']['class_agnostic']
    assert 'class_agnostic' not in model['test_cfg']['rpn']['nms'] and model['roi_head']['nms'] == dict(type='other')
    assert not _make_nms_agnostic(dict(test_cfg=dict(max_per_img=100)))


def test_wrong_arguments_are_named(tiny):
    with pytest.raises(UserError, match='score_thr=30: must be from 0 to 1'):
        Detector(*tiny, score_thr=30)
