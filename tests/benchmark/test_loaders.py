import itertools
import os

import pytest
import torch
from mmengine.config import Config
from torch.utils.data import DataLoader

from mixdet.benchmark import loaders
from mixdet.benchmark.loaders import Rate, clocked_loader, data_markdown, data_report, loader_rates, measure_turn
from mixdet.benchmark.timing import Timing
from mixdet.errors import UserError


class Numbers(torch.utils.data.Dataset):
    """Six samples; a process notes what it has given."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return index


def config(**loader):
    return Config(
        dict(train_dataloader=dict(dict(batch_size=2, num_workers=1, sampler=dict(type='DefaultSampler')), **loader))
    )


@pytest.mark.parametrize('workers', [0, 2])
def test_batches_tell_their_process_and_go_on_without_end(workers):
    batches = list(itertools.islice(clocked_loader(config(), Numbers(), workers), 5))
    assert [sorted(batch) for batch, *_ in batches[:3]] != [] and all(size == 2 for _, size, _, _ in batches)
    assert sorted(number for batch, *_ in batches[:3] for number in batch) == list(range(6))
    processes = {process for _, _, process, _ in batches}
    assert processes == {os.getpid()} if not workers else len(processes) == 2 and os.getpid() not in processes


class Clocked:
    """A loader of ``workers`` (process numbers) whose batches took 3 s of each, and 1 s of this process."""

    def __init__(self, workers, time):
        self.num_workers, self.workers, self.time = len(workers), workers, time

    def __iter__(self):
        for number in itertools.count():
            self.time.now += 1
            process = self.workers[number % len(self.workers)] if self.workers else os.getpid()
            own = 3.0 * (number // max(1, len(self.workers)))
            yield None, 4, process, self.time.now if process == os.getpid() else 100 + own


class FakeTime:
    now = 0.0

    def perf_counter(self):
        return 2 * self.now

    def process_time(self):
        return self.now


def test_rate_counts_the_workers_and_not_their_start(monkeypatch):
    """Six batches of four images in twice as many seconds as this process works, which is one for each batch."""
    time = FakeTime()
    monkeypatch.setattr(loaders, 'time', time)
    assert measure_turn(Clocked([], time), 6) == Rate(24 / 12, 1e3 * 6 / 24)
    assert measure_turn(Clocked([1, 2], time), 6) == Rate(24 / 12, 1e3 * (6 + 6 * 3) / 24)
    assert measure_turn(Clocked([1, 2, 3], time), 1) == Rate(2, 1e3 * (3 + 3 * 3) / 12)  # at least a batch of each


def test_no_whole_batch():
    loader = DataLoader(Numbers(), batch_size=8, drop_last=True)
    with pytest.raises(UserError, match='gives no batch; make its batch_size smaller'):
        measure_turn(loader, 1)


def test_loaders_take_turns(monkeypatch):
    turns = []

    def turn(loader, batches):
        turns.append((loader.num_workers, len(loader.dataset)))
        return Rate(len(turns), 10 * len(turns))

    monkeypatch.setattr(loaders, 'measure_turn', turn)
    halves = torch.utils.data.Subset(Numbers(), range(3))
    rates = loader_rates(dict(a=config(), b=config()), dict(a=Numbers(), b=halves), [0, 2], rounds=3)
    assert turns == [(0, 6), (0, 3), (2, 6), (2, 3)] * 3
    assert rates == dict(a={0: Rate(5, 50), 2: Rate(7, 70)}, b={0: Rate(6, 60), 2: Rate(8, 80)})


def report(steps):
    transforms = dict(a=dict(Load=2.0, all=2.5), b=dict(Load=4.0, Crop=6.0, all=10.0))
    return data_report(
        transforms, dict(a={0: Rate(400, 2.5), 2: Rate(800, 3)}, b={0: Rate(100, 10), 2: Rate(200, 12)}), steps
    )


def test_tables():
    page = data_markdown(report({}))
    assert '| Load | 2 | 4 |\n| Crop | - | 6 |\n| all | 2.5 | 10 |\n| over the last | 0.25 | 1 |' in page
    assert '| a | 2 | 800 | 4 | 3 |' in page and '| b | 0 | 100 | 1 | 10 |' in page


def test_what_a_loader_allows_a_step():
    """A step of 4 ms an image: with no worker it waits for the loading, with some the slower of both counts."""
    step = Timing(4.0, 4.0, 4.0, 5.0)
    page = data_markdown(report(dict(a=step, b=step)))
    assert '| a | 0 | 400 | 4 | 2.5 | 4 | 154 | 1 |' in page  # 1000 / (2.5 + 4)
    assert '| a | 2 | 800 | 4 | 3 | 4 | 250 | 1 |' in page
    assert '| b | 2 | 200 | 1 | 12 | 4 | 200 | 3 |' in page  # a worker is busy for 12 ms with an image
    assert '| a | 5 | 3 | 8 | 0.471 |' in page and '| b | 5 | 12 | 17 | 1 |' in page
    assert 'training step' not in data_markdown(report(dict(a=step._replace(cpu=0.0), b=step._replace(cpu=0.0))))
