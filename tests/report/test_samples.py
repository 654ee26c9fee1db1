import random

import numpy as np
import pytest
import torch
from helpers import ROOT
from mmdet.datasets import CocoDataset, MultiImageMixDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset

from mixdet.datasets import make_demo_data
from mixdet.engine.seeded_data import SeededDataset
from mixdet.evaluation.details import Box
from mixdet.report.pictures import IGNORED, LABELLED
from mixdet.report.samples import augmented_samples, class_names, save_samples

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """The demo's training set, of six images."""
    root = make_demo_data(tmp_path_factory.mktemp('samples') / 'demo', {'train': 6, 'val': 1})
    cfg = Config.fromfile(ROOT / 'configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py').train_dataloader.dataset
    cfg.data_root = f'{root}/'
    return DATASETS.build(cfg)


def pixels(samples):
    return [np.array(sample.picture) for sample in samples]


def test_samples_are_augmented_as_in_training(demo):
    samples = list(augmented_samples(demo, 4, seed=1))
    assert len({sample.data_index for sample in samples}) == 4 and all(
        sample.path.endswith('.jpg') for sample in samples
    )
    assert {sample.picture.size for sample in samples} == {(160, 160)} and all(sample.boxes for sample in samples)
    assert {box.state for sample in samples for box in sample.boxes} == {LABELLED}
    again, other = (pixels(augmented_samples(demo, 4, seed)) for seed in (1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(pixels(samples), again))
    assert not all(np.array_equal(a, b) for a, b in zip(again, other))
    assert len(list(augmented_samples(demo, 99))) == len(demo) == 6


def test_nothing_is_changed(demo):
    """Neither random numbers nor what transforms remember: the training goes on as if no sample had been drawn."""
    transform = Remembering()
    demo.pipeline.transforms.insert(0, transform)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for dataset in (demo, SeededDataset(demo), ConcatDataset([demo, demo]), RepeatDataset(demo, 2)):
        assert len(list(augmented_samples(dataset, 3))) == 3
    demo.pipeline.transforms.remove(transform)
    assert transform.seen == 0
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])


class Remembering:
    """A transform with a state, as CachedMosaic."""

    seen = 0

    def __call__(self, results):
        self.seen += 1
        return results


def test_samples_for_the_report(demo, tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images/train_9.jpg').write_bytes(b'of an earlier training')
    records = save_samples(demo, 2, 0, tmp_path)
    assert sorted(path.name for path in (tmp_path / 'images').iterdir()) == ['train_1.jpg', 'train_2.jpg']
    assert records[0]['size'] == [160, 160] and records[0]['truth'][0]['name'] in class_names(demo)


def item_of(inputs, corners=((1, 2, 3, 4),), ignored=()):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    sample = DetDataSample(metainfo=dict(img_path='a.png'))
    for key, boxes in (('gt_instances', corners), ('ignored_instances', ignored)):
        instances = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float).reshape(-1, 4))
        instances.labels = torch.zeros(len(boxes), dtype=torch.long)
        setattr(sample, key, instances)
    return dict(inputs=inputs, data_samples=sample)


class Items(list):
    metainfo = dict(classes=('a',))


def test_colours_and_boxes():
    blue = torch.zeros(3, 4, 6, dtype=torch.uint8)
    blue[0] = 255  # BGR
    (sample,) = augmented_samples(Items([item_of(blue, ignored=((0, 0, 2, 2),))]), 1)
    assert sample.picture.size == (6, 4) and sample.picture.getpixel((0, 0)) == (0, 0, 255)
    assert sample.boxes == [Box((1, 2, 3, 4), 0, LABELLED), Box((0, 0, 2, 2), 0, IGNORED)]
    normalised = torch.linspace(-2, 2, 24).reshape(1, 4, 6)
    (sample,) = augmented_samples(Items([item_of(normalised)]), 1)
    assert sample.picture.getpixel((0, 0)) == (0, 0, 0) and sample.picture.getpixel((5, 3)) == (255, 255, 255)


@pytest.mark.parametrize('item', [dict(), dict(inputs=[]), 3, None, dict(inputs=torch.zeros(3, 4, 4), data_samples=1)])
def test_other_pipelines_are_named(item):
    with pytest.raises(ValueError, match='sample 0: the pipeline gives no image with boxes'):
        list(augmented_samples(Items([item]), 1))


def test_mosaics(demo):
    cfg = dict(type='Mosaic', img_scale=(80, 80), pad_val=114.0)
    loading = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
    inner = CocoDataset(ann_file=demo.ann_file, data_prefix=demo.data_prefix, metainfo=demo.metainfo, pipeline=loading)
    dataset = MultiImageMixDataset(inner, [cfg, dict(type='PackDetInputs')])
    (sample,) = augmented_samples(dataset, 1)
    assert sample.picture.size == (160, 160)
