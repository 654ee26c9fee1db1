"""How long networks take, compared in one run."""

import contextlib
from collections.abc import Mapping
from functools import partial

import torch
from torch import nn

from mixdet.benchmark.complexity import run_network
from mixdet.benchmark.timing import interleave
from mixdet.layers.modes import evaluation_mode


def measure_latency(
    models: Mapping[str, nn.Module], input_size: tuple[int, int] = (320, 320), device: str = 'cpu', rounds: int = 10
) -> dict[str, float]:
    """Median milliseconds of each model's network on one image (height, width), without decoding and NMS.

    The models take turns, so that whatever else the machine does slows all of them alike: ratios hold better than
    the figures. No rounds, no figures.
    """
    if not rounds:
        return {}
    runs = {name: partial(_run, model.to(device), input_size, device) for name, model in models.items()}
    with contextlib.ExitStack() as modes:
        for model in models.values():
            modes.enter_context(evaluation_mode(model))
        return {name: timing.wall for name, timing in interleave(runs, seconds=0, rounds=rounds).items()}


def _run(model: nn.Module, input_size: tuple[int, int], device: str) -> None:
    with torch.inference_mode():
        run_network(model, input_size)
    if device != 'cpu':
        torch.cuda.synchronize()
