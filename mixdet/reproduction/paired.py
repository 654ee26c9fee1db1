"""Statistics of a few seeds: means, paired differences with an interval, agreement of two orders."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from scipy import stats

CONFIDENCE = 0.95


class Difference(NamedTuple):
    """Paired differences a - b.

    Attributes:
        pairs: how many.
        mean: of the differences.
        interval: of Student's t at ``CONFIDENCE``; None for a single pair.
        ahead: in how many pairs a is larger; ties count half.
    """

    pairs: int
    mean: float
    interval: Optional[tuple[float, float]]
    ahead: float


def paired_difference(a: Mapping, b: Mapping) -> Optional[Difference]:
    """The differences between the values of ``a`` and ``b`` under the keys that both have; None if there is none."""
    found = [a[key] - b[key] for key in a if key in b]
    if not found:
        return None
    mean, interval = statistics.fmean(found), None
    if len(found) > 1:
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(found) - 1))
        half = quantile * statistics.stdev(found) / math.sqrt(len(found))
        interval = (mean - half, mean + half)
    return Difference(len(found), mean, interval, sum((value > 0) + (value == 0) / 2 for value in found))


class Agreement(NamedTuple):
    """How far two figures order the same things alike.

    Attributes:
        tau: Kendall's tau-b, 1 for the same order and -1 for the reverse; NaN if one figure is the same for all.
        same: pairs of things in the same order.
        pairs: pairs that differ in both figures.
    """

    tau: float
    same: int
    pairs: int


def agreement(a: Mapping[str, float], b: Mapping[str, float]) -> Optional[Agreement]:
    """How far ``a`` and ``b`` agree on the order of their common keys; None if these are fewer than three."""
    names = [name for name in a if name in b]
    if len(names) < 3:
        return None
    signs = [(a[x] - a[y]) * (b[x] - b[y]) for x, y in itertools.combinations(names, 2)]
    tau = float(stats.kendalltau([a[name] for name in names], [b[name] for name in names]).statistic)
    return Agreement(tau, sum(sign > 0 for sign in signs), sum(sign != 0 for sign in signs))


def mean_and_deviation(values: Sequence[float], digits: int = 1) -> str:
    """``23.4 ± 0.6`` of fractions, in percent; the mean alone for one value."""
    mean = f'{100 * statistics.fmean(values):.{digits}f}'
    return f'{mean} ± {100 * statistics.stdev(values):.{digits}f}' if len(values) > 1 else mean
