import itertools
import multiprocessing
import os
import pickle
import random
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner
from tiny_training import BATCHES, config
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, get_worker_info

from mixdet.datasets import PhotoMetricDistortion, SSDCrop
from mixdet.engine.randomness import rng_state, seed, set_rng_state
from mixdet.engine.seeded_data import EndlessBatches, SeededDataset, SeededLoader, seed_epoch, seed_loaders


class Draws(Dataset):
    """Each sample: its index and a number of each generator."""

    pipeline = 'old'

    def __getitem__(self, index):
        return [index, random.random(), np.random.rand(), torch.rand(()).item()]

    def __len__(self):
        return 10


def loader(workers=0, key=(7, 0), **options):
    made = DataLoader(Draws(), 3, shuffle=True, num_workers=workers, collate_fn=list, **options)
    return SeededLoader(made, key)


@pytest.fixture(autouse=True)
def used():
    """Generators in a state that no loader leaves behind."""
    seed(99)


def test_the_number_of_workers_makes_no_difference_and_the_epoch_does():
    def epochs(made):
        result = []
        for made.batch_sampler.epoch in range(2):
            result.append(list(made))
        return result

    first, second = epochs(loader())
    assert sorted(sample[0] for batch in first for sample in batch) == list(range(10))
    assert [len(batch) for batch in first] == [3, 3, 3, 1] and len(loader()) == 4
    assert epochs(loader(2)) == epochs(loader(2, persistent_workers=True)) == [first, second]


def test_every_place_has_its_own_seed():
    """Of two runs, two processes, two epochs, and of all the batches and places in them."""
    numbers = []
    for key in ((7, 0), (7, 1), (8, 0)):
        made = loader(key=key)
        for made.batch_sampler.epoch in range(2):
            numbers += [sample[1:] for batch in made for sample in batch]
    for of_generator in zip(*numbers):
        assert len(set(of_generator)) == len(numbers) == 60


def test_the_key_of_a_sample_is_its_place():
    sampler = loader().batch_sampler
    sampler.epoch = 5
    expected = [[(7, 0, 5, number, place) for place in range(size)] for number, size in enumerate((3, 3, 3, 1))]
    assert [[item.key for item in batch] for batch in sampler] == expected


def test_an_epoch_that_begins_later_has_the_same_batches():
    made = loader()
    whole = list(made)
    made.batch_sampler.skip = 3
    assert list(made) == whole[3:] and list(made) == whole


class Augmented(Draws):
    """Each sample: an image and a box through the augmentation of the SSDLite configs."""

    transforms = (SSDCrop(16, mean=[127] * 3), PhotoMetricDistortion())

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 256, (30, 40, 3), np.uint8)
        results = dict(img=image, gt_bboxes=np.array([[4.0, 5, 30, 20]], np.float32))
        for transform in self.transforms:
            results = transform(results)
        return results['img'].tolist(), results['gt_bboxes'].tolist()


def test_our_augmentation_continues_as_if_uninterrupted():
    def batches(workers=0, skip=0):
        made = SeededLoader(DataLoader(Augmented(), 3, num_workers=workers, collate_fn=list), (7, 0))
        made.batch_sampler.skip = skip
        return list(made)

    whole = batches()
    assert batches(2) == whole and batches(1, skip=2) == whole[2:]


@pytest.mark.parametrize('workers', [0, 1])
def test_the_generators_of_the_process_are_left_alone(workers):
    state = rng_state()
    expected = Draws()[0]
    set_rng_state(state)
    for _ in loader(workers):
        pass
    assert Draws()[0] == expected


def test_other_options_are_those_of_the_loader():
    started = []
    made = DataLoader(
        Draws(), 3, num_workers=2, timeout=50, prefetch_factor=3, persistent_workers=True, worker_init_fn=started.append
    )
    seeded = SeededLoader(made, (7, 0))
    for name in ('num_workers', 'timeout', 'prefetch_factor', 'persistent_workers', 'collate_fn', 'pin_memory'):
        assert getattr(seeded, name) == getattr(made, name), name
    assert seeded.multiprocessing_context is made.multiprocessing_context
    assert SeededLoader(seeded, (7, 0)).dataset is seeded.dataset  # wrapped once


class Signalled(Dataset):
    """Sends the signals of a group, Ctrl-C and SIGTERM, to its worker before each sample."""

    def __getitem__(self, index):
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        return get_worker_info().id, index, START

    def __len__(self):
        return 4


START = []


@pytest.mark.skipif(not hasattr(signal, 'sigwaitinfo'), reason='not on this system')
def test_workers_heed_no_signal_but_the_end_that_their_parent_sends():
    made = DataLoader(Signalled(), 1, num_workers=1, collate_fn=list, worker_init_fn=START.append)
    batches = iter(SeededLoader(made, (7, 0)))
    assert list(batches) == [[(0, index, [0])] for index in range(4)]
    batches = iter(loader(1))
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGTERM)
    worker.join()
    assert worker.exitcode == 0


def test_the_data_set_is_reached_through_its_wrapper():
    wrapped = SeededDataset(Draws())
    wrapped.pipeline = 'new'  # as MMDetection's PipelineSwitchHook does
    assert wrapped.dataset.pipeline == 'new' and vars(wrapped) == dict(dataset=wrapped.dataset)
    assert wrapped[3][0] == 3  # without a seed
    copy = pickle.loads(pickle.dumps(wrapped))
    assert len(copy) == 10 and copy.pipeline == 'new'
    wrapped.dataset.__special__ = 'not of the wrapper'
    assert not any(hasattr(wrapped, name) for name in ('missing', '__special__'))
    assert not hasattr(object.__new__(SeededDataset), 'pipeline')


def test_an_endless_loader_continues_where_it_stopped():
    def endless(done, dropped):
        sampler = BatchSampler(RandomSampler(range(10)), 3, drop_last=False)
        made = DataLoader(Draws(), batch_sampler=sampler, collate_fn=list)
        return EndlessBatches(SeededLoader(made, (7, 0), endless=True), done, dropped)

    whole = [batch for batch, _ in zip(endless(0, 0), range(11))]
    for epoch in (whole[:4], whole[4:8]):
        assert sorted(sample[0] for batch in epoch for sample in batch) == list(range(10))
    assert whole[:3] != whole[4:7]
    later = endless(6, 6)  # MMEngine's loop drops the first batches
    assert [next(later) for _ in range(11)] == [None] * 6 + whole[6:]
    later = endless(6, 6)  # onedl-mmengine's loop calls skip_iter
    later.skip_iter(6)
    assert [next(later) for _ in range(5)] == whole[6:]
    later = endless(6, 0)  # with fast_forward_on_resume=True it skips nothing
    assert [next(later) for _ in range(5)] == whole[6:]


def test_an_endless_loader_tells_its_sampler_the_epoch():
    made = DataLoader(Draws(), 3, sampler=DefaultSampler(Draws(), seed=1), collate_fn=list)
    batches = EndlessBatches(SeededLoader(made, (7, 0), endless=True), 0, 0)
    indices = [[sample[0] for sample in next(batches)] for _ in range(12)]
    expected = []
    for epoch in range(3):
        sampler = DefaultSampler(Draws(), seed=1)
        sampler.set_epoch(epoch)
        expected += BatchSampler(sampler, 3, drop_last=False)
    assert indices == expected


def test_an_endless_loader_needs_one_batch():
    def indices(batch_size):
        sampler = BatchSampler(range(3), batch_size, drop_last=True)
        loader = SeededLoader(DataLoader(Draws(), batch_sampler=sampler, collate_fn=list), (7, 0), endless=True)
        return [sample[0] for batch in itertools.islice(loader, 2) for sample in batch]

    assert indices(batch_size=3) == [0, 1, 2, 0, 1, 2] and indices(batch_size=4) == []


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def runner(tmp_path, monkeypatch, warnings):
    """Makes the runner of a tiny training, as it is before the training; its warnings are collected."""
    monkeypatch.setattr(Runner, '_log_env', lambda *args: None)

    def make(change=lambda cfg: None, **options):
        cfg = config(tmp_path, **options)
        change(cfg)
        made = Runner.from_cfg(cfg)
        monkeypatch.setattr(made.logger, 'warning', warnings.append)
        _ = made.train_loop, made.val_loop
        return made

    return make


def keys(batch_sampler):
    return [item.key for batch in batch_sampler for item in batch]


def test_both_loaders_of_a_run_are_seeded(runner, warnings):
    made = runner()
    made.train_loop._iter = 5
    before, val_before = made.train_loop.dataloader.dataset, made.val_loop.dataloader.dataset
    seed_loaders(made)
    for loop, dataset in ((made.train_loop, before), (made.val_loop, val_before)):
        assert isinstance(loop.dataloader, SeededLoader) and loop.dataloader.dataset.dataset is dataset
        assert keys(loop.dataloader.batch_sampler)[:2] == [(7, 0, 0, 0, 0), (7, 0, 0, 0, 1)]
        assert not loop.dataloader.batch_sampler.endless and loop.dataloader.batch_sampler.skip == 0
    assert warnings == []
    for made.train_loop._epoch in (0, 2):
        seed_epoch(made)
        assert keys(made.train_loop.dataloader.batch_sampler)[0] == (7, 0, made.epoch, 0, 0)


def test_the_sampler_has_the_seed_of_the_run(runner):
    """A run that resumes takes the seed of the checkpoint after its loaders were built."""
    made = runner()
    made._seed = 8
    seed_loaders(made)
    assert made.train_dataloader.batch_sampler.sampler.seed == 8
    assert made.train_dataloader.batch_sampler.key == (8, 0)


def test_processes_draw_differently(runner, monkeypatch):
    monkeypatch.setattr('mixdet.engine.seeded_data.get_rank', lambda: 3)
    made = runner()
    seed_loaders(made)
    assert keys(made.train_dataloader.batch_sampler)[0] == (7, 3, 0, 0, 0)


def test_an_iteration_based_run_continues_after_the_batches_that_are_done(runner):
    made = runner(by_epoch=False)
    made.train_loop._iter = 6
    seed_loaders(made)
    batches = made.train_loop.dataloader_iterator
    assert isinstance(batches, EndlessBatches) and batches.pending == 6
    assert made.train_dataloader.batch_sampler.endless and made.train_dataloader.batch_sampler.skip == 6
    made.train_loop._epoch = 3
    seed_epoch(made)
    assert made.train_dataloader.batch_sampler.epoch == 0  # the sampler itself counts


def test_a_run_without_validation(runner):
    made = runner(lambda cfg: cfg.update(val_dataloader=None, val_cfg=None, val_evaluator=None))
    seed_loaders(made)
    assert isinstance(made.train_dataloader, SeededLoader) and made.val_loop is None


def test_a_loader_that_the_user_made_is_kept(runner):
    made = runner()
    sampler = BatchSampler(RandomSampler(range(4 * BATCHES)), 2, drop_last=False)
    made.train_loop.dataloader = DataLoader(Draws(), batch_sampler=sampler)
    made.cfg.train_dataloader = None
    seed_loaders(made)
    assert made.train_dataloader.batch_sampler.batch_sampler is sampler


def test_a_shortened_epoch_stays_shortened(runner):
    made = runner(lambda cfg: cfg.train_dataloader.update(num_batch_per_epoch=2))
    seed_loaders(made)
    assert len(made.train_dataloader) == 2 and len(list(made.train_dataloader.batch_sampler)) == 2


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(4))


@pytest.mark.parametrize('kind', ['iterable', 'without batches'])
def test_loaders_without_places_are_left_alone(runner, warnings, kind):
    made = runner()
    unseeded = DataLoader(Stream()) if kind == 'iterable' else DataLoader(Draws(), batch_size=None)
    made.train_loop.dataloader = made.val_loop.dataloader = unseeded
    seed_loaders(made)
    assert made.train_loop.dataloader is made.val_loop.dataloader is unseeded
    assert warnings == ['iterable data set or no batch sampler: a resumed run will not see the same data']
    seed_epoch(made)
    made = runner()
    made.val_loop.dataloader = unseeded
    seed_loaders(made)
    assert isinstance(made.train_dataloader, SeededLoader) and made.val_loop.dataloader is unseeded


def test_loops_of_other_kinds_are_left_alone(runner, warnings, monkeypatch):
    made = runner()
    unseeded = DataLoader(Draws())
    monkeypatch.setattr(Runner, 'train_loop', SimpleNamespace(dataloader=unseeded))
    seed_loaders(made)
    assert made.train_loop.dataloader is unseeded
    assert warnings == ['SimpleNamespace: a resumed run will not see the same data']


@pytest.mark.parametrize('name', ['CachedMosaic', 'CachedMixUp', 'BatchSyncRandomResize'])
def test_transforms_with_a_memory_are_warned_of(runner, warnings, name):
    made = runner()
    made.cfg = Config(dict(train_dataloader=None, model=dict(batch_augments=[dict(type=name)])))
    made.train_loop.dataloader = DataLoader(Draws(), 3)
    seed_loaders(made)
    assert warnings == [f'{name} keep a state of their own: a resumed run is not exact']
