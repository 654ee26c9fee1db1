"""The result file of a run of a study: what was trained, what came of it, and on what."""

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mmdet
import mmengine
import numpy as np
import torch
from mmengine.runner import Runner

from mixdet.benchmark.complexity import count_complexity
from mixdet.benchmark.machine import device_name
from mixdet.datasets.wrappers import unwrap_dataset
from mixdet.engine.atomic import make_folder, write_text, writing
from mixdet.errors import UserError
from mixdet.evaluation.numbers import CocoNumbers
from mixdet.reproduction.study import Run
from mixdet.version import __version__

POINTS = 40  # of a loss curve
CHOICES = 'choices'  # the folder of the chosen settings among the results


@dataclass(frozen=True)
class RunResult:
    """What a run gave.

    Attributes:
        family, row, config, data, seed: of the run; ``config`` is the name of the row's.
        settings: variables of the schedule it was trained with.
        epochs, iterations, batch_size: of the training.
        input_size: (height, width), px.
        images: ``train`` and ``test``, numbers of images.
        stats: the twelve COCO numbers of the last checkpoint, as fractions; ``per_class``: AP.
        params, macs: of the detector as it was trained, at ``input_size``.
        loss: (iteration, mean loss of the iterations up to it since the last point).
        seconds: ``train`` (all iterations, with loading) and ``test``.
        device: of the training; ``jobs``: how many runs it did side by side.
        versions: by name of the package.
        command: that does this run alone.
    """

    family: str
    row: str
    config: str
    data: str
    seed: int
    settings: Mapping[str, Any]
    epochs: int
    iterations: int
    batch_size: int
    input_size: Sequence[int]
    images: Mapping[str, int]
    stats: Mapping[str, float]
    per_class: Mapping[str, float]
    params: int
    macs: int
    loss: Sequence[Sequence[float]] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    device: str = ''
    jobs: int = 1
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ''

    @property
    def ap(self) -> float:
        """AP of the boxes, a fraction."""
        return self.stats['mAP']


def make_result(
    run: Run,
    settings: Mapping[str, Any],
    runner: Runner,
    metrics: Mapping[str, float],
    test_seconds: float,
    command: str,
    jobs: int = 1,
) -> RunResult:
    """The result of ``run`` from the Runner that has trained and tested it.

    Args:
        run, settings: what was done.
        runner: after its training; its history is that of the whole training, also of one that was resumed.
        metrics: what the test returned.
        test_seconds: how long it took.
        command: that repeats the run.
        jobs: how many runs were trained side by side.
    """
    numbers = CocoNumbers.from_metrics(metrics).bbox
    pipeline = unwrap_dataset(runner.cfg.test_dataloader.dataset)['pipeline']
    scale = next(step['scale'] for step in pipeline if 'scale' in step)
    size = (scale[1], scale[0])
    cost = count_complexity(runner.model, size)
    losses, times = (runner.message_hub.get_scalar(f'train/{key}').data[0] for key in ('loss', 'time'))
    return RunResult(
        family=run.family,
        row=run.row,
        config=run.config.stem,
        data=run.data,
        seed=run.seed,
        settings=dict(settings),
        epochs=runner.max_epochs,
        iterations=runner.max_iters,
        batch_size=runner.cfg.train_dataloader.batch_size,
        input_size=size,
        images=dict(train=len(runner.train_dataloader.dataset), test=len(runner.test_dataloader.dataset)),
        stats={name: round(value, 6) for name, value in numbers.stats.items()},
        per_class={name: round(value, 6) for name, value in numbers.per_class.items()},
        params=cost.params,
        macs=cost.macs,
        loss=thinned(losses),
        seconds=dict(train=round(float(np.sum(times)), 1), test=round(test_seconds, 1)),
        device=device_name(),
        jobs=jobs,
        versions=versions(),
        command=command,
    )


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    packages = dict(mixdet=__version__, mmdet=mmdet.__version__, mmengine=mmengine.__version__)
    return dict(packages, torch=torch.__version__, python=platform.python_version())


def thinned(values: Sequence[float], points: int = POINTS) -> list[tuple[int, float]]:
    """Means of ``values`` over at most ``points`` stretches of equal length, each with the number of values so far."""
    bounds = sorted({round(len(values) * i / points) for i in range(1, points + 1)} - {0})
    return [
        (end, float(f'{statistics.fmean(map(float, values[start:end])):.4g}'))
        for start, end in zip([0, *bounds], bounds)
    ]


def write_run_result(result: RunResult, path: Path) -> None:
    """Write a result; whoever reads it finds all of it or nothing. Raises UserError if it cannot be written."""
    make_folder(path.parent)
    with writing(path):
        write_text(path, json_text(asdict(result)))


def json_text(content: Mapping[str, Any]) -> str:
    """``content`` as JSON, with a line for each of its keys."""
    return '{\n' + ',\n'.join(f' {json.dumps(key)}: {json.dumps(value)}' for key, value in content.items()) + '\n}\n'


def read_json(path: Path) -> dict:
    """A file of ``json_text``. Raises UserError for another file."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f'{path} cannot be read as JSON ({type(error).__name__}); remove it') from error
    if not isinstance(content, dict):
        raise UserError(f'{path} is not a result of tools/study.py; remove it')
    return content


def read_run_result(path: Path) -> RunResult:
    """The result in ``path``. Raises UserError if it is none."""
    try:
        result = RunResult(**read_json(path))
        float(result.ap)
        return result
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f'{path} is not a result of tools/study.py ({error}); remove it') from error


def read_run_results(folder: Path) -> list[RunResult]:
    """All results below ``folder``, in the order of their names. Raises UserError for a file that is none."""
    paths = sorted(path for path in folder.glob('*/*.json') if path.parent.name != CHOICES)
    return [read_run_result(path) for path in paths]


def read_choices(folder: Path) -> list[dict]:
    """What the families in ``folder`` have chosen: ``family``, ``row``, ``data``, ``chosen`` and ``tried``."""
    return [read_json(path) for path in sorted((folder / CHOICES).glob('*.json'))]
