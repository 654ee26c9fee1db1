from types import SimpleNamespace

import pytest

from mixdet.benchmark import timing
from mixdet.benchmark.timing import Timing, time_in_turns, wall_and_cpu_time

pytestmark = pytest.mark.slow


@pytest.fixture
def clock(monkeypatch):
    """Clocks that stand still, in seconds, until a test moves them."""
    clock = SimpleNamespace(wall=100.0, cpu=50.0)
    clocks = SimpleNamespace(perf_counter=lambda: clock.wall, process_time=lambda: clock.cpu)
    monkeypatch.setattr(timing, 'time', clocks)
    return clock


def test_wall_clock_and_cpu_time_are_told_apart(clock):
    def work():
        clock.wall += 0.003
        clock.cpu += 0.005  # two threads

    assert wall_and_cpu_time(work) == pytest.approx((3, 5))


def test_functions_take_turns_and_warm_up_in_turns():
    order = []
    functions = {name: lambda name=name: order.append(name) for name in 'ab'}
    timed = []

    def timer(function):
        function()
        timed.append(order[-1])
        return 1.0, 1.0

    assert list(time_in_turns(functions, 0.0, rounds=5, timer=timer, warmup=2)) == ['a', 'b']
    assert order == ['a', 'b'] * 7 and timed == ['a', 'b'] * 5


@pytest.mark.parametrize(('walls', 'expected'), [
    ([30.0, 10.0, 20.0, 50.0, 40.0], Timing(wall=30.0, low=15.0, high=45.0, cpu=7.0, rounds=5)),
    ([20.0, 10.0], Timing(wall=15.0, low=7.5, high=22.5, cpu=7.0, rounds=2)),
    ([20.0], Timing(wall=20.0, low=20.0, high=20.0, cpu=7.0, rounds=1)),
])  # fmt: skip
def test_median_and_quartiles(walls, expected):
    left = iter(walls)
    cpu = iter([7.0] * 3 + [1.0, 90.0])
    timings = time_in_turns({'f': lambda: None}, 0.0, len(walls), timer=lambda function: (next(left), next(cpu)))
    assert timings == {'f': expected}


def test_it_goes_on_for_the_seconds_but_does_all_rounds(clock):
    calls = []

    def work():
        calls.append(1)
        clock.wall += 1

    functions = {'a': work, 'b': work}
    time_in_turns(functions, seconds=10, rounds=2, warmup=0)
    assert len(calls) == 10  # five rounds of two seconds
    calls.clear()
    time_in_turns(functions, seconds=1, rounds=4, warmup=0)
    assert len(calls) == 8
