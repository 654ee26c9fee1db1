"""Timing alternatives against one another on a machine that others use too."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from mixdet.layers.cpu import cpu_name


class Timing(NamedTuple):
    """Milliseconds of one call: median and quartiles on the clock, and the median of CPU time over all threads."""

    wall: float
    low: float
    high: float
    cpu: float


def on_the_clock(function: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of one call: on the clock, and of CPU time."""
    start, start_cpu = time.perf_counter(), time.process_time()
    function()
    return 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - start_cpu)


def interleave(
    functions: Mapping[str, Callable[[], object]],
    seconds: float = 1.0,
    rounds: int = 5,
    timer: Callable[[Callable[[], object]], tuple[float, float]] = on_the_clock,
    warmup: int = 1,
) -> dict[str, Timing]:
    """Call ``functions`` in turn, over and over, so that what disturbs one disturbs all.

    Each is called ``warmup`` times beforehand, in turn as well. It ends after ``seconds``, but not before ``rounds``
    rounds. ``timer`` calls a function and returns its milliseconds.
    """
    for function in [*functions.values()] * warmup:
        function()
    wall: dict[str, list[float]] = {name: [] for name in functions}
    cpu: dict[str, list[float]] = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    done = 0
    while done < rounds or time.perf_counter() < end:
        for name, function in functions.items():
            for times, measured in zip((wall[name], cpu[name]), timer(function)):
                times.append(measured)
        done += 1
    return {name: _summary(wall[name], cpu[name]) for name in functions}


def _summary(wall: list[float], cpu: list[float]) -> Timing:
    low, median, high = statistics.quantiles(wall, n=4) if len(wall) > 1 else wall * 3
    return Timing(median, low, high, statistics.median(cpu))


def environment() -> str:
    """The machine, how busy it is, and the versions that a measurement was made with, in one line."""
    load = f'load average {os.getloadavg()[0]:.1f}, ' if hasattr(os, 'getloadavg') else ''
    cpus = f'{os.cpu_count()} x {cpu_name()}, {torch.backends.cpu.get_cpu_capability()}'
    versions = f'Python {platform.python_version()}, torch {torch.__version__}'
    return f'{cpus}, {torch.get_num_threads()} thread(s), {load}{versions}'


def device_name() -> str:
    """The name of the GPU if there is one, or of the CPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
