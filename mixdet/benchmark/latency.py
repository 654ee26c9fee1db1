"""How long networks take on one image, compared in one run."""

import contextlib
from collections.abc import Mapping
from functools import partial

import torch
from torch import nn

from mixdet.benchmark.complexity import run_network
from mixdet.benchmark.timing import time_in_turns
from mixdet.layers.modes import evaluation_mode


def measure_latency(
    models: Mapping[str, nn.Module], input_size: tuple[int, int] = (320, 320), device: str = 'cpu', rounds: int = 10
) -> dict[str, float]:
    """Median milliseconds of each model's network on one image (height, width), without decoding and NMS.

    The models take turns, so that other load on the machine slows all of them alike: their ratios are more reliable
    than the figures themselves. With ``rounds=0`` nothing is measured, and the result is empty.
    """
    if not rounds:
        return {}
    runs = {name: partial(_run_once, model.to(device), input_size, device) for name, model in models.items()}
    with contextlib.ExitStack() as modes:
        for model in models.values():
            modes.enter_context(evaluation_mode(model))
        return {name: timing.wall for name, timing in time_in_turns(runs, seconds=0, rounds=rounds).items()}


def _run_once(model: nn.Module, input_size: tuple[int, int], device: str) -> None:
    with torch.inference_mode():
        run_network(model, input_size)
    if device != 'cpu':
        torch.cuda.synchronize()
