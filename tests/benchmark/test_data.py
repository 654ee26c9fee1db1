import types

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose, ConcatDataset, RepeatDataset

from mixdet.benchmark import data
from mixdet.benchmark.data import REST, WHOLE, TimedTransform, build_train_loader, timed_transforms, transform_times
from mixdet.errors import UserError


class Clock:
    """Stands for ``time``: moves only when told to."""

    def __init__(self):
        self.now = 0.0

    def process_time(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(data, 'time', clock)
    return clock


class Spend:
    """A transform that takes ``seconds`` and draws a number."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.drawn = clock, seconds, []

    def __call__(self, results):
        self.clock.now += self.seconds
        self.drawn.append(np.random.rand())
        return results

    def get_indexes(self, dataset):
        return [len(dataset)]


class Load(Spend):
    pass


class Images(BaseDataset):
    """Four images; reading an entry takes 1 ms."""

    def __init__(self, *transforms, length=4):
        self.clock, self.asked = transforms[0].clock if transforms else None, []
        super().__init__(serialize_data=False, lazy_init=False)
        self.data_list = self.data_list[:length]
        self.pipeline = Compose(list(transforms))

    def load_data_list(self):
        return [dict(number=i) for i in range(4)]

    def __getitem__(self, index):
        self.clock.now += 0.001
        self.asked.append(index)
        return self.pipeline(dict(number=index))


def test_time_of_each_transform(clock):
    """Also of one that stands twice in a pipeline, and of data sets inside others."""
    parts = Load(clock, 0.004), Spend(clock, 0.002), Spend(clock, 0.003)
    plain = Images(*parts)
    joined = ConcatDataset([plain, Images(Load(clock, 0.008))])
    datasets = {'plain': RepeatDataset(plain, times=3), 'joined': joined}
    times = transform_times(datasets, images=8, rounds=3)
    assert list(times['plain']) == ['Load', 'Spend', 'Spend 2', REST, WHOLE]
    assert list(times['plain'].values()) == pytest.approx([4, 2, 3, 1, 10])
    # half of the images are of each data set
    assert list(times['joined'].values()) == pytest.approx([6, 1, 1.5, 1, 9.5])
    assert plain.pipeline.transforms == list(parts)


def test_images_are_spread_over_the_data_and_draws_repeat(clock):
    drawn = []
    for _ in range(2):
        transform = Spend(clock, 0.001)
        dataset = Images(transform)
        transform_times({'a': dataset}, images=2, rounds=2)
        assert dataset.asked == [0, 2] * 3
        drawn.append(transform.drawn)
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 6


def test_medians_leave_out_the_first_round_and_a_disturbance(clock):
    transform = Spend(clock, 0)
    seconds = iter([9, 1, 50, 2])
    dataset = Images(transform, length=1)

    def disturbed(results):
        clock.now += next(seconds)
        return results

    dataset.pipeline.transforms[0] = disturbed
    assert transform_times({'a': dataset}, images=1, rounds=3)['a']['function'] == pytest.approx(2000)


def test_a_timed_transform_looks_like_its_own():
    load = Load(None, 0)
    timed = TimedTransform(load, 'Load', {})
    assert hasattr(timed, 'get_indexes') and not hasattr(timed, 'transform') and timed.seconds == 0


def test_transforms_come_back_after_an_error(clock):
    dataset = Images(Load(clock, 1))
    before = list(dataset.pipeline.transforms)
    with pytest.raises(KeyError), timed_transforms(dataset):
        raise KeyError
    assert dataset.pipeline.transforms == before


def test_a_pipeline_that_is_a_plain_list(clock):
    """As that of ``MultiImageMixDataset``."""
    dataset = types.SimpleNamespace(pipeline=[Load(clock, 0.5)])
    with timed_transforms(dataset) as spent:
        dataset.pipeline[0]({})
    assert spent == {'Load': 0.5}


def test_an_empty_data_set(clock):
    with pytest.raises(UserError, match=r'a: train_dataloader.dataset is empty'):
        transform_times({'a': Images(Load(clock, 1), length=0)})


def test_the_loader_of_a_config():
    with pytest.raises(UserError, match='no train_dataloader'):
        build_train_loader(Config(dict(train_dataloader=None)))
    dataset = Images()
    settings = dict(num_workers=4, persistent_workers=True, prefetch_factor=3, num_batch_per_epoch=1, dataset=None)
    cfg = Config(dict(train_dataloader=dict(settings, batch_size=2, sampler=dict(type='DefaultSampler'))))
    for workers, prefetch in ((0, None), (2, 3)):
        loader = build_train_loader(cfg, dataset, workers)
        assert loader.dataset.dataset is dataset and loader.batch_size == 2
        assert (loader.num_workers, loader.prefetch_factor) == (workers, prefetch)
