"""Timing functions against one another on a machine that is also used by others."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

# calls a function once and returns two times in ms, such as wall_and_cpu_time
Timer = Callable[[Callable[[], object]], tuple[float, float]]


class Timing(NamedTuple):
    """Milliseconds of one call.

    ``wall``, ``low``, ``high``: median and quartiles of the wall-clock time. ``cpu``: median of the CPU time, summed
    over all threads. ``rounds``: how many calls these were taken from.
    """

    wall: float
    low: float
    high: float
    cpu: float
    rounds: int = 0


def wall_and_cpu_time(function: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds that one call takes: wall-clock time, and CPU time of all threads."""
    start, start_cpu = time.perf_counter(), time.process_time()
    function()
    return 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - start_cpu)


def time_in_turns(
    functions: Mapping[str, Callable[[], object]],
    seconds: float = 1.0,
    rounds: int = 5,
    timer: Timer = wall_and_cpu_time,
    warmup: int = 1,
) -> dict[str, Timing]:
    """Call all ``functions`` in turn, again and again, so that a disturbance affects all of them alike.

    Args:
        functions: what is timed, by name.
        seconds: how long to go on.
        rounds: calls of each function at least, even if they take longer than ``seconds``.
        timer: measures one call.
        warmup: calls of each function before the measurement, also in turn.
    """
    for function in [*functions.values()] * warmup:
        function()
    wall: dict[str, list[float]] = {name: [] for name in functions}
    cpu: dict[str, list[float]] = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    done = 0
    while done < rounds or time.perf_counter() < end:
        for name, function in functions.items():
            wall_ms, cpu_ms = timer(function)
            wall[name].append(wall_ms)
            cpu[name].append(cpu_ms)
        done += 1
    return {name: _summary(wall[name], cpu[name]) for name in functions}


def _summary(wall: list[float], cpu: list[float]) -> Timing:
    low, median, high = statistics.quantiles(wall, n=4) if len(wall) > 1 else wall * 3
    return Timing(median, low, high, statistics.median(cpu), len(wall))
