from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch

from mixdet.benchmark import memory
from mixdet.benchmark.memory import peak_memory

pytestmark = pytest.mark.slow

MIB = 2**20


def mebibytes(count):
    return torch.zeros(count * MIB // 4)


def test_counts_what_is_alive_at_one_time():
    before = mebibytes(50)

    def work():
        a = mebibytes(3)
        b = mebibytes(2)
        del a
        c = mebibytes(2)
        return before.sum() + b.sum() + c.sum()

    # 3 + 2, then 2 + 2; a few bytes for the sums
    assert 5 * MIB <= peak_memory(work) < 5 * MIB + 1024


def test_counts_what_an_operator_takes_for_itself():
    x = torch.randn(1, 8, 64, 64, dtype=torch.float64)
    weight = torch.randn(8, 8, 3, 3, dtype=torch.float64)
    # not oneDNN's in float64: PyTorch writes out the nine pixels of every position
    assert peak_memory(lambda: torch.nn.functional.conv2d(x, weight, padding=1)) >= (1 + 9) * x.nbytes


def test_events_are_taken_in_order_of_time(monkeypatch):
    """Threads report their events one thread after another."""

    class Event(NamedTuple):
        time: int
        bytes: int
        kind: str = '[memory]'

        def name(self):
            return self.kind

        def nbytes(self):
            return self.bytes

        def start_ns(self):
            return self.time

    events = [Event(1, 4), Event(4, 8), Event(2, 2), Event(3, -5), Event(5, 100, 'aten::add'), Event(6, -9)]
    calls = []

    class Profile:
        def __init__(self, **options):
            assert options['profile_memory'] and calls == [1]  # after a call that warms up

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.profiler = SimpleNamespace(kineto_results=SimpleNamespace(events=lambda: events))

    monkeypatch.setattr(memory, 'profile', Profile)
    assert peak_memory(lambda: calls.append(1)) == 9 and len(calls) == 2  # 4, 6, 1, 9, 0
