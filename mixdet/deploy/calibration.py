"""The ranges of activations that 8 bits represent best.

The smallest and largest value ever seen are poor bounds. Networks without bounded activations (swish, SiLU) have images
on which they run away, to 50 times the usual values in the deep layers: a single one among those for calibration leaves
a handful of levels to all others. So a value that is several times as large as the largest of a typical image is not
taken into account. Within what is left, the bounds of each tensor minimise the mean squared error that rounding and
clipping cause over a histogram of its values. Of a tensor that goes into x * sigmoid(x) the error behind that function
counts: large negative values, which it maps to almost 0, need no levels of their own.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BINS = 2048
LEVELS = 255  # steps of 8 bits
OUTLIER = 3  # times the median of the images' largest values
SHRINKING = np.linspace(0.2, 1, 33)  # fractions of the observed bounds that are tried


def best_ranges(
    path: Path, tensors: Sequence[str], swish: set[str], inputs: Callable[[], Iterable[dict[str, np.ndarray]]]
) -> dict[str, tuple[float, float]]:
    """Lower and upper bound, one of them 0 or beyond, of each of ``tensors`` that has any values.

    Args:
        path: the ONNX file.
        tensors: names of float tensors in its graph.
        swish: those of them that go into x * sigmoid(x).
        inputs: gives the graph's inputs for each calibration image, again at each call.
    """
    import onnx
    import onnxruntime

    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])

    def values(names: Sequence[str]) -> Iterator[Sequence[np.ndarray]]:
        return (session.run(list(names), each) for each in inputs())

    return ranges_of(tensors, swish, values)


def ranges_of(
    tensors: Sequence[str], swish: set[str], values: Callable[[Sequence[str]], Iterable[Sequence[np.ndarray]]]
) -> dict[str, tuple[float, float]]:
    """Lower and upper bound of each of ``tensors`` that has any values, as in ``best_ranges``, for any runtime.

    Args:
        tensors: names of tensors.
        swish: those of them that go into x * sigmoid(x).
        values: gives the values of the tensors it is called with, in that order, for each calibration image.
    """
    extremes: dict[str, list[tuple[float, float]]] = {name: [] for name in tensors}
    for each in values(tensors):
        for name, value in zip(tensors, each):
            extremes[name].append((float(value.min(initial=0)), float(value.max(initial=0))))
    bounds = {name: _usual_bounds(np.array(seen)) for name, seen in extremes.items()}
    used = [name for name, (low, high) in bounds.items() if high > low]
    counts = {name: np.zeros(BINS) for name in used}
    for each in values(used):
        for name, value in zip(used, each):
            counts[name] += np.histogram(value, BINS, bounds[name])[0]
    return {name: _best_range(counts[name], *bounds[name], name in swish) for name in used}


def _usual_bounds(extremes: np.ndarray) -> tuple[float, float]:
    """The smallest and largest value of the images without outliers, given those of each image (images, 2)."""
    finite = extremes[np.isfinite(extremes).all(1)]
    if not len(finite):
        return 0.0, 0.0
    sizes = np.abs(finite)
    usual = np.where(sizes <= OUTLIER * np.median(sizes, axis=0), finite, 0)
    return float(usual[:, 0].min()), float(usual[:, 1].max())


def _best_range(counts: np.ndarray, low: float, high: float, swish: bool) -> tuple[float, float]:
    """The bounds within ``low`` and ``high`` with the smallest error for a histogram between them."""
    edges = np.linspace(low, high, BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    kept = counts > 0
    centres, weights = centres[kept], counts[kept]
    function: Callable[[Any], Any] = _swish if swish else lambda x: x
    wanted = function(centres)
    best, bounds = np.inf, (low, high)
    for lower in low * SHRINKING if low < 0 else (low,):
        for upper in high * SHRINKING if high > 0 else (high,):
            step = (upper - lower) / LEVELS
            zero = np.round(-lower / step)
            rounded = (np.clip(np.round(centres / step) + zero, 0, LEVELS) - zero) * step
            error = float((weights * (function(rounded) - wanted) ** 2).sum())
            if error < best:
                best, bounds = error, (float(lower), float(upper))
    return bounds


def _swish(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-np.clip(x, -60, 60)))
