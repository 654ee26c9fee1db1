"""How long networks take on one image, compared in one run."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import nn

from mixdet.benchmark.complexity import run_network
from mixdet.benchmark.timing import Timing, time_in_turns
from mixdet.layers.modes import evaluation_mode

FEWEST = 5  # rounds: quartiles of fewer say nothing


def measure_latency(
    models: Mapping[str, nn.Module], input_size: tuple[int, int] = (320, 320), device: str = 'cpu', rounds: int = 10
) -> dict[str, float]:
    """Median milliseconds of each model's network on one image (height, width), without decoding and NMS.

    The models take turns, so that other load on the machine slows all of them alike: their ratios are more reliable
    than the figures themselves. With ``rounds=0`` nothing is measured, and the result is empty.
    """
    if not rounds:
        return {}
    with _ready(models, input_size, device) as runs:
        return {name: timing.wall for name, timing in time_in_turns(runs, seconds=0, rounds=rounds).items()}


def time_network(
    model: nn.Module,
    input_size: tuple[int, int] = (320, 320),
    device: str = 'cpu',
    rounds: int = 30,
    seconds: float = 2.0,
) -> Timing:
    """Median and quartiles of one network's time on one image, and its CPU time, from up to ``rounds`` runs.

    A network so slow that they would take longer than about ``seconds`` gets fewer, at least five. The quartiles say
    how steady the machine was; the CPU time hardly depends on what else ran on it.
    """
    with _ready({'model': model}, input_size, device) as runs:
        trial = time_in_turns(runs, seconds=0, rounds=1)['model']  # after a run that warms up
        rounds = max(FEWEST, min(rounds, int(1e3 * seconds / max(trial.wall, 1e-3))))
        return time_in_turns(runs, seconds=0, rounds=rounds, warmup=0)['model']


@contextlib.contextmanager
def _ready(
    models: Mapping[str, nn.Module], input_size: tuple[int, int], device: str
) -> Iterator[dict[str, Callable[[], None]]]:
    """Functions that run each of ``models`` once, which are in evaluation mode meanwhile."""
    with contextlib.ExitStack() as modes:
        for model in models.values():
            modes.enter_context(evaluation_mode(model))
        yield {name: partial(_run_once, model.to(device), input_size, device) for name, model in models.items()}


def _run_once(model: nn.Module, input_size: tuple[int, int], device: str) -> None:
    with torch.inference_mode():
        run_network(model, input_size)
    if device != 'cpu':
        torch.cuda.synchronize()
