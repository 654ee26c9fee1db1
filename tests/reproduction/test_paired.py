import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mixdet.reproduction.paired import agreement, mean_and_deviation, paired_difference

aps = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=8)


def test_differences_are_taken_seed_by_seed():
    found = paired_difference({0: 0.5, 1: 0.3, 2: 0.9}, {1: 0.2, 0: 0.6, 5: 0.1})
    assert found.pairs == 2 and found.mean == pytest.approx(0) and found.ahead == 1
    assert found.interval == pytest.approx((-12.7062 * 0.1, 12.7062 * 0.1), rel=1e-4)  # t of one degree of freedom


@given(aps, st.randoms())
def test_the_interval_is_that_of_the_paired_t_test(values, random):
    others = [random.random() for _ in values]
    found = paired_difference(dict(enumerate(values)), dict(enumerate(others)))
    expected = stats.ttest_rel(values, others).confidence_interval(0.95)
    if np.std(np.subtract(values, others)) > 1e-6:
        assert found.interval == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)
    assert found.ahead == sum(a > b for a, b in zip(values, others)) + sum(a == b for a, b in zip(values, others)) / 2


def test_one_pair_has_no_interval_and_none_no_difference():
    found = paired_difference({0: 0.5}, {0: 0.25, 1: 1})
    assert found == (1, 0.25, None, 1)
    assert paired_difference({0: 0.5}, {1: 0.5}) is None


def test_agreement_of_orders():
    paper = dict(a=1, b=2, c=3, d=3)
    assert agreement(dict(a=10, b=20, c=30), paper) == (1, 3, 3)
    assert agreement(dict(a=30, b=20, c=10), paper) == (-1, 0, 3)
    assert agreement(dict(a=10, b=20, c=15, x=1), paper) == (pytest.approx(1 / 3), 2, 3)
    tied = agreement(dict(a=10, b=20, c=30, d=40), paper)
    assert (tied.same, tied.pairs) == (5, 5) and 0.9 < tied.tau < 1
    assert agreement(dict(a=1, b=2), paper) is None
    assert math.isnan(agreement(dict(a=1, b=1, c=1), paper).tau)


def test_means():
    assert mean_and_deviation([0.25]) == '25.0'
    assert mean_and_deviation([0.2, 0.3]) == '25.0 ± 7.1'
