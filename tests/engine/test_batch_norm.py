"""Batches of one image: which are left out, and that a run with them left out is whole."""

import math

import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.runner import Runner as MMEngineRunner
from tiny_training import TinyDataset, TinyModel, config, difference, outcome
from tiny_training import train as train_with_mmengine
from torch import nn
from torch.utils.data import BatchSampler, DataLoader

from mixdet.engine import Runner
from mixdet.engine.batch_norm import trains_batch_norm
from mixdet.errors import UserError
from mixdet.registry import MODELS

WARNING = (
    'train_dataloader: 9 images in an epoch in batches of 4 would end with a batch of one, on which batch-norm cannot '
    'train: 8 are used, without another one each time; another batch_size uses all'
)


@pytest.fixture(autouse=True)
def short_start(monkeypatch):
    monkeypatch.setattr(MMEngineRunner, '_log_env', lambda *args: None)


@pytest.fixture
def warnings(monkeypatch):
    """Warnings of the runs' loggers."""
    found = []
    build = Runner.build_logger

    def build_logger(self, *args, **kwargs):
        logger = build(self, *args, **kwargs)
        monkeypatch.setattr(logger, 'warning', found.append)
        return logger

    monkeypatch.setattr(Runner, 'build_logger', build_logger)
    return found


@pytest.fixture
def images(monkeypatch):
    """Sets the number of images; batches have four."""

    def set_number(number):
        monkeypatch.setattr(TinyDataset, 'load_data_list', lambda self: [dict(number=i) for i in range(number)])

    return set_number


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr('tiny_training.Runner', Runner)  # mixdet's
    return train_with_mmengine


@MODELS.register_module()
class FlatModel(TinyModel):
    """Batch-norm on maps of 1x1."""

    def forward(self, x, target, mode):
        return super().forward([image[:, :3, :3] for image in x], target, mode)


def flat(folder, **options):
    cfg = config(folder, **options)
    cfg.model.type = 'mixdet.FlatModel'
    return cfg


@pytest.mark.parametrize('by_epoch', [True, False])
def test_the_last_batch_of_one_is_left_out(tmp_path, images, run, warnings, by_epoch):
    images(9)
    cfg = flat(tmp_path, by_epoch=by_epoch)
    cfg.param_scheduler = dict(
        type='CosineAnnealingLR', T_max=3, end=3, by_epoch=by_epoch, convert_to_iter_based=by_epoch or None
    )
    if not by_epoch:
        cfg.param_scheduler.update(T_max=12, end=12)
        cfg.param_scheduler.pop('convert_to_iter_based')
    runner = run(cfg)
    assert warnings == [WARNING]
    assert len(runner.train_dataloader) == 2
    assert (runner.iter, runner.max_iters) == ((6, 6) if by_epoch else (12, 12))
    assert runner.param_schedulers[0].T_max == runner.max_iters  # built for the epochs as they are
    last = (runner.max_iters - 1) / runner.max_iters
    assert runner.optim_wrapper.param_groups[0]['lr'] == pytest.approx(0.01 * (1 + math.cos(math.pi * last)) / 2)


@pytest.mark.parametrize(('by_epoch', 'accumulate', 'workers'), [(True, 1, 0), (True, 2, 2), (False, 2, 0)])
def test_resuming_stays_exact(tmp_path, images, run, by_epoch, accumulate, workers):
    images(9)
    settings = dict(by_epoch=by_epoch, accumulate=accumulate, interval=1)
    expected = outcome(run(flat(tmp_path / 'whole', **settings)))
    run(flat(tmp_path / 'a', workers=workers, **settings), kill_at=3)  # within the second epoch
    assert difference(outcome(run(flat(tmp_path / 'a', workers=workers, **settings), resume=True)), expected) == 0.0


@pytest.mark.parametrize('number', [8, 10, 11])
def test_other_batches_are_kept(tmp_path, images, warnings, number):
    images(number)
    runner = Runner.from_cfg(config(tmp_path))
    assert len(runner.train_loop.dataloader) == -(-number // 4) and warnings == []


def test_networks_without_batch_norm_keep_all_images(tmp_path, images, warnings):
    images(9)
    for model in (nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.Identity()):
        cfg = config(tmp_path)
        runner = Runner.from_cfg(cfg)
        runner.model.body[1] = model
        assert len(runner.train_loop.dataloader) == 3
    assert warnings == []


def test_which_networks_train_batch_norm(monkeypatch):
    class Frozen(nn.Sequential):
        def train(self, mode=True):
            super().train(mode)
            for module in self:
                module.eval()
            return self

    norm = nn.BatchNorm2d(2)
    assert trains_batch_norm(nn.Sequential(norm).eval()) and norm.training
    assert not trains_batch_norm(Frozen(norm))
    assert trains_batch_norm(Frozen(nn.BatchNorm2d(2, track_running_stats=False)))
    sync = nn.Sequential(nn.SyncBatchNorm(2))
    assert trains_batch_norm(sync)
    monkeypatch.setattr('mixdet.engine.batch_norm.get_world_size', lambda: 2)
    assert not trains_batch_norm(sync) and trains_batch_norm(nn.Sequential(norm))


def test_several_processes_count_their_own_images(tmp_path, images, warnings, monkeypatch):
    """Of 10 images each of two processes has 5."""
    images(10)
    monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (1, 2))
    monkeypatch.setattr('mixdet.engine.batch_norm.get_world_size', lambda: 2)
    runner = Runner.from_cfg(config(tmp_path))
    assert len(runner.train_loop.dataloader) == 1 and runner.max_iters == 3
    assert warnings[0].startswith('train_dataloader: 5 images for each of 2 processes in an epoch in batches of 4')


def test_the_batches_of_other_samplers(tmp_path, images, monkeypatch):
    """Those that group images, whose number is known, and those that never end."""
    from mmdet.datasets.samplers import AspectRatioBatchSampler

    images(9)
    monkeypatch.setattr(TinyDataset, 'get_data_info', lambda self, i: dict(width=1 + i % 2, height=1.5), raising=False)
    cfg = config(tmp_path)
    cfg.train_dataloader.batch_sampler = dict(type='AspectRatioBatchSampler')
    loader = Runner.from_cfg(cfg).train_loop.dataloader
    assert isinstance(loader.batch_sampler, AspectRatioBatchSampler)
    assert len(loader) == 2 and [len(batch) for batch in loader.batch_sampler] == [4, 4]
    cfg = config(tmp_path, by_epoch=False)
    cfg.train_dataloader.sampler.type = 'InfiniteSampler'
    loader = Runner.from_cfg(cfg).train_loop.dataloader
    assert isinstance(loader.sampler, InfiniteSampler) and not loader.batch_sampler.drop_last


def test_data_sets_inside_others_are_counted_whole(tmp_path, images):
    images(3)
    cfg = config(tmp_path)
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=cfg.train_dataloader.dataset)
    assert len(Runner.from_cfg(cfg).train_loop.dataloader) == 2


def test_a_loader_that_the_user_made(tmp_path, images):
    images(9)
    runner = Runner.from_cfg(config(tmp_path))
    dataset = runner.train_dataloader.dataset
    sampler = BatchSampler(DefaultSampler(dataset, shuffle=False, seed=0), 4, drop_last=False)
    runner = Runner.from_cfg(config(tmp_path))
    runner._train_dataloader = DataLoader(dataset, batch_sampler=sampler)
    assert len(runner.train_loop.dataloader) == 2


@pytest.mark.parametrize(('number', 'size'), [(3, 1), (1, 4)])
def test_single_images_are_one_line(tmp_path, images, run, warnings, number, size):
    """An error where batch-norm cannot train on them, a warning where it can."""
    images(number)
    cfg = flat(tmp_path)
    cfg.train_dataloader.batch_size = size
    with pytest.raises(UserError, match='^batch-norm had a single value per channel, .*; use batches of two or more'):
        run(cfg)
    assert warnings == []
    cfg = config(tmp_path)
    cfg.train_dataloader.batch_size = size
    run(cfg)
    assert len(warnings) == 1 and warnings[0].startswith('batches of one image: batch-norm normalises each image')


def test_other_errors_are_passed_on(tmp_path, run, monkeypatch):
    monkeypatch.setattr(TinyModel, 'forward', lambda self, **kwargs: int('x'))
    with pytest.raises(ValueError, match='invalid literal') as error:
        run(config(tmp_path))
    assert not isinstance(error.value, UserError)
