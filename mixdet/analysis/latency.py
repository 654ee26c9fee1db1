"""How long networks take, compared in one run."""

import statistics
import time
from collections.abc import Mapping

import torch
from torch import nn

from mixdet.analysis.complexity import run_network


def measure_latency(
    models: Mapping[str, nn.Module], input_size: tuple[int, int] = (320, 320), device: str = 'cpu', rounds: int = 10
) -> dict[str, float]:
    """Median milliseconds of each model's network on one image (height, width), without decoding and NMS.

    The models take turns, so that whatever else the machine does slows all of them alike: ratios hold better than
    the figures. One round is for warming up.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    models = {name: model.to(device).eval() for name, model in models.items()}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, model in models.items():
                _wait(device)
                start = time.perf_counter()
                run_network(model, input_size)
                _wait(device)
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def _wait(device: str) -> None:
    if device != 'cpu':
        torch.cuda.synchronize()
