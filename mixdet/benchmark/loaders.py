"""How fast a training's data loader is, what it costs, and what that allows a training step."""

import copy
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch.utils.data import DataLoader

from mixdet.benchmark.data import WHOLE, build_train_loader
from mixdet.benchmark.machine import environment
from mixdet.benchmark.peers import build_detector
from mixdet.benchmark.timing import Timing, time_in_turns
from mixdet.engine.seeded_data import SeededLoader
from mixdet.errors import UserError


class Rate(NamedTuple):
    """A loader with some number of workers.

    Attributes:
        images: per second, wall-clock time.
        cpu: milliseconds of CPU per image, those of the workers included.
    """

    images: float
    cpu: float


class _Clocked:
    """``collate``, whose batches come with the number of their images, the process, and its CPU time so far."""

    def __init__(self, collate: Callable) -> None:
        self.collate = collate

    def __call__(self, samples: list) -> tuple[Any, int, int, float]:
        batch = self.collate(samples)
        return batch, len(samples), os.getpid(), time.process_time()


def clocked_loader(cfg: Config, dataset: Any, workers: int) -> DataLoader:
    """The loader with which mixdet trains ``cfg``, without end, for ``measure_turn``."""
    loader = build_train_loader(cfg, dataset, workers)
    loader.collate_fn = _Clocked(loader.collate_fn)
    return SeededLoader(loader, key=(0, 0), endless=True)


def measure_turn(loader: DataLoader, batches: int) -> Rate:
    """Start ``loader``, drop a batch of each worker, and measure the next ``batches``; starting up does not count.

    Raises:
        UserError: if the loader has no whole batch.
    """
    iterator, clocks = iter(loader), {}
    try:
        for _ in range(max(1, loader.num_workers)):
            _, _, process, clock = next(iterator)
            clocks[process] = (clock, clock)
        images, start, main = 0, time.perf_counter(), time.process_time()
        for _ in range(max(batches, loader.num_workers)):
            _, size, process, clock = next(iterator)
            images += size
            clocks[process] = (clocks[process][0], clock)
    except StopIteration:
        raise UserError('train_dataloader gives no batch; make its batch_size smaller') from None
    seconds, cpu = time.perf_counter() - start, time.process_time() - main
    clocks.pop(os.getpid(), None)  # counted already
    cpu += sum(last - first for first, last in clocks.values())
    return Rate(images / seconds, 1e3 * cpu / images)


def loader_rates(
    cfgs: Mapping[str, Config], datasets: Mapping[str, Any], workers: Sequence[int], batches: int = 8, rounds: int = 3
) -> dict[str, dict[int, Rate]]:
    """The rates of each config's loader by number of workers; medians of ``rounds``, in which the loaders take turns.

    Args:
        cfgs: configs of trainings, by name.
        datasets: their data sets, built.
        workers: numbers of worker processes, 0 for the training's own.
        batches: in a turn.
        rounds: turns of each loader.
    """
    turns: dict[tuple[str, int], list[Rate]] = {}
    for _, count, name in itertools.product(range(rounds), workers, cfgs):
        loader = clocked_loader(cfgs[name], datasets[name], count)
        turns.setdefault((name, count), []).append(measure_turn(loader, batches))
    return {
        name: {count: Rate(*map(statistics.median, zip(*turns[name, count]))) for count in workers} for name in cfgs
    }


def training_step(cfg: Config, batch: Any) -> Callable[[], None]:
    """A function that trains the detector of ``cfg`` (random weights) for one step on ``batch``, as loaded.

    On a GPU where there is one; in channels_last where the config has ``mixdet.ChannelsLastHook``. The optimizer's
    wrapper, with its mixed precision, is the config's.
    """
    model: Any = build_detector(cfg).train()
    if any('ChannelsLastHook' in str(hook.get('type')) for hook in cfg.get('custom_hooks') or []):
        model.to(memory_format=torch.channels_last)
    if torch.cuda.is_available():
        model.cuda()
    optim_wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))

    def run() -> None:
        model.train_step(copy.deepcopy(batch), optim_wrapper)  # the step changes the boxes' type in place
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def step_times(cfgs: Mapping[str, Config], datasets: Mapping[str, Any], seconds: float = 10) -> dict[str, Timing]:
    """Time of one image in a training step of each config, without loading; the steps take turns.

    Raises:
        UserError: if a config has no model or no optimizer.
    """
    steps, sizes = {}, {}
    for name, cfg in cfgs.items():
        if not cfg.get('model') or not cfg.get('optim_wrapper'):
            raise UserError(f'{name}: --step needs a model and an optim_wrapper in the config; or give --step-ms')
        batch, sizes[name], _, _ = next(iter(clocked_loader(cfg, datasets[name], 0)))
        steps[name] = training_step(cfg, batch)
    times = time_in_turns(steps, seconds, rounds=3, warmup=2)
    return {
        name: Timing(t.wall / size, t.low / size, t.high / size, t.cpu / size, t.rounds)
        for name, size in sizes.items()
        for t in [times[name]]
    }


def data_report(
    transforms: dict[str, dict[str, float]], loaders: dict[str, dict[int, Rate]], steps: Mapping[str, Timing]
) -> dict[str, Any]:
    """All figures, per image, as JSON has them, from ``transform_times``, ``loader_rates`` and ``step_times``."""
    return dict(
        environment=environment(),
        transforms_cpu_ms=transforms,
        loaders={
            name: {str(count): dict(images_per_s=rate.images, cpu_ms=rate.cpu) for count, rate in rates.items()}
            for name, rates in loaders.items()
        },
        steps={name: dict(ms=step.wall, cpu_ms=step.cpu) for name, step in steps.items()},
    )


def data_markdown(report: dict[str, Any]) -> str:
    """Tables of ``data_report``; ratios are over the last config."""
    transforms, loaders, steps = report['transforms_cpu_ms'], report['loaders'], report['steps']
    *_, last = names = list(transforms)
    rows = dict.fromkeys(row for each in transforms.values() for row in each if row != WHOLE)
    lines = [f'Measured on {report["environment"]}. All per image.', '', *_header('CPU time, ms', *names)]
    lines += [_row(row, *(_number(transforms[name].get(row)) for name in names)) for row in [*rows, WHOLE]]
    if len(names) > 1:
        lines += [_row('over the last', *(_number(transforms[n][WHOLE] / transforms[last][WHOLE]) for n in names))]
    limits = ['a step of, ms', 'then images/s', 'workers for it'] if steps else []
    lines += ['', *_header('loader', 'workers', 'images/s', 'over the last', 'CPU time, ms', *limits)]
    for name, rates in loaders.items():
        for count, rate in rates.items():
            ratio = rate['images_per_s'] / loaders[last][count]['images_per_s']
            cells = [count, _number(rate['images_per_s']), _number(ratio), _number(rate['cpu_ms'])]
            lines.append(_row(name, *cells, *(_limits(steps[name]['ms'], int(count), rate) if steps else [])))
    if any(step['cpu_ms'] for step in steps.values()):
        lines += ['', *_header('CPU time, ms', 'training step', 'loading', 'both', 'over the last')]
        both = {}
        for name, step in steps.items():
            loading = list(loaders[name].values())[-1]['cpu_ms']
            both[name] = [step['cpu_ms'], loading, step['cpu_ms'] + loading]
        lines += [_row(n, *map(_number, costs), _number(costs[2] / both[last][2])) for n, costs in both.items()]
    return '\n'.join(lines) + '\n'


def _limits(step: float, workers: int, rate: dict[str, float]) -> list[str]:
    """Milliseconds of a step, images/s of steps with this loader, and how many workers would keep up with them."""
    loading = 1e3 / rate['images_per_s']
    images = 1e3 / (max(step, loading) if workers else step + loading)
    return [_number(step), _number(images), str(max(1, math.ceil(rate['cpu_ms'] / step)))]


def _number(value: Optional[float]) -> str:
    return '-' if value is None else f'{value:.3g}' if value < 100 else f'{value:.0f}'


def _row(*cells: str) -> str:
    return f'| {" | ".join(cells)} |'


def _header(*cells: str) -> list[str]:
    return [_row(*cells), '|' + '---|' * len(cells)]
