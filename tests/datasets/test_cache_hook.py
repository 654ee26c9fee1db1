"""The cache in a training: filled before it, with the same result as without."""

import json

import cv2
import numpy as np
import pytest
from mmengine.config import ConfigDict
from mmengine.registry import DATASETS
from mmengine.runner import get_priority

from mixdet.datasets import ImageCacheHook
from mixdet.engine import CheckpointHook
from mixdet.errors import UserError


@pytest.fixture
def data(tmp_path):
    """Eight images of 40x60 px with a box each."""
    rng = np.random.default_rng(0)
    (tmp_path / 'images').mkdir()
    images, boxes = [], []
    for i in range(8):
        cv2.imwrite(str(tmp_path / f'images/{i}.png'), rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
        images.append(dict(id=i, file_name=f'{i}.png', height=40, width=60))
        outline = [[5, 5, 25, 5, 25, 35]]
        boxes.append(
            dict(id=i, image_id=i, category_id=1, bbox=[5, 5, 20, 30], area=600, iscrowd=0, segmentation=outline)
        )
    content = dict(images=images, annotations=boxes, categories=[dict(id=1, name='a')])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    return tmp_path


def dataset(data, masks=False, **load):
    pipeline = [
        dict(type='mixdet.LoadCachedImage', cache=str(data / 'cache'), **load),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=masks),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackDetInputs'),
    ]
    return ConfigDict(
        type='RepeatDataset',
        times=2,
        dataset=dict(
            type='CocoDataset',
            data_root=str(data),
            serialize_data=False,  # serializing collects garbage, which takes a second
            ann_file='a.json',
            data_prefix=dict(img='images/'),
            metainfo=dict(classes=('a',)),
            pipeline=pipeline,
        ),
    )


class Loader:
    def __init__(self, cfg):
        self.dataset = DATASETS.build(cfg)


class FakeRunner:
    def __init__(self, cfg):
        self.train_dataloader = self.val_dataloader = self.test_dataloader = Loader(cfg)


def files(data):
    return sorted(path for path in (data / 'cache').rglob('*') if path.is_file())


def test_fills_the_cache_before_the_training(data, capsys):
    runner = FakeRunner(dataset(data))
    ImageCacheHook().before_train(runner)
    assert len(files(data)) == 8 and 'Decoding images' in capsys.readouterr().out
    ImageCacheHook().before_train(runner)
    assert 'Decoding' not in capsys.readouterr().out
    assert (runner.train_dataloader.dataset[3]['inputs'].shape) == (3, 40, 60)


def test_does_nothing_without_a_cache(data):
    cfg = dataset(data)
    cfg.dataset.pipeline[0].cache = False
    ImageCacheHook().before_train(FakeRunner(cfg))
    cfg.dataset.pipeline[0] = dict(type='LoadImageFromFile')
    ImageCacheHook().before_train(FakeRunner(cfg))
    assert not (data / 'cache').exists()


def test_refuses_to_shrink_where_the_own_size_is_needed(data):
    ImageCacheHook().before_train(FakeRunner(dataset(data, masks=True)))
    ImageCacheHook().before_val_epoch(FakeRunner(dataset(data)))
    with pytest.raises(UserError, match='no masks or maps; set min_side=None'):
        ImageCacheHook().before_train(FakeRunner(dataset(data, masks=True, min_side=20)))
    for method in ('before_val_epoch', 'before_test_epoch'):
        with pytest.raises(UserError, match='min_side is for trainings'):
            getattr(ImageCacheHook(), method)(FakeRunner(dataset(data, min_side=20)))


def test_each_process_does_its_share(data, monkeypatch):
    monkeypatch.setattr('mixdet.datasets.cache_hook.get_rank', lambda: 1)
    monkeypatch.setattr('mixdet.datasets.cache_hook.get_world_size', lambda: 4)
    ImageCacheHook().before_train(FakeRunner(dataset(data)))
    assert len(files(data)) == 2


def test_comes_before_the_hook_that_starts_the_workers():
    assert get_priority(ImageCacheHook.priority) < get_priority(CheckpointHook.priority)
