import math

import pytest

from mixdet.datasets.values import LARGEST, SHOWN, is_finite, is_id, is_real, is_segmentation, shorten


@pytest.mark.parametrize(('value', 'expected'), [(0, True), ('a', True), (True, False), (1.0, False), (None, False)])
def test_ids(value, expected):
    assert is_id(value) is expected


@pytest.mark.parametrize(
    ('value', 'real', 'finite'),
    [
        (0, True, True), (-1.5, True, True), (True, False, False), ('1', False, False), (None, False, False),
        (math.nan, True, False), (math.inf, True, False), (int(LARGEST**4), True, True), (10**400, True, False),
        (-(10**400), True, False),
    ],
)  # fmt: skip
def test_numbers(value, real, finite):
    assert is_real(value) is real and is_finite(value) is finite


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        ([[0, 0, 1, 0, 1, 1]], True),
        ([], True),
        ([[0, 0, 1, 0]], False),
        ([[0, 0, 1, 0, 1, 1, 2]], False),
        ([[0, 0, 1, 0, 1, math.nan]], False),
        ([0, 0, 1, 0, 1, 1], False),
        (dict(size=[4, 4], counts='abc'), True),
        (dict(size=[4, 4], counts=[1, 2]), True),
        (dict(size=[4, 4]), False),
        (dict(size=4, counts='abc'), False),
        ('abc', False),
    ],
)
def test_segmentations(value, expected):
    assert is_segmentation(value) is expected


def test_long_values_are_cut():
    assert shorten('a') == "'a'" and shorten('a' * (SHOWN - 2)) == repr('a' * (SHOWN - 2))
    assert shorten('a' * SHOWN) == f"'{'a' * (SHOWN - 4)}..." and len(shorten([1] * 100)) == SHOWN
