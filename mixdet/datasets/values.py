"""Tests for single values of a COCO file, which can hold anything that JSON can."""

import math
from numbers import Real
from typing import Any

LARGEST = 1e8  # px; a larger number cannot be a coordinate
SHOWN = 60  # characters of a value in a message


def is_id(value: Any) -> bool:
    """Whether ``value`` can be the id of an image, category or annotation."""
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Whether ``value`` is a number, possibly infinite or NaN."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether ``value`` is a finite number; an integer too large for a float is not."""
    return is_real(value) and (abs(value) <= LARGEST**4 if isinstance(value, int) else math.isfinite(value))


def is_segmentation(value: Any) -> bool:
    """Whether ``value`` is a list of polygons with at least three points each, or a run-length encoding of COCO's."""
    if isinstance(value, dict):
        return isinstance(value.get('size'), list) and isinstance(value.get('counts'), (list, str))
    if not isinstance(value, list):
        return False
    return all(
        isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0 and all(map(is_finite, part)) for part in value
    )


def shorten(value: Any) -> str:
    """``value`` as it is shown in a message."""
    text = repr(value)
    return text if len(text) <= SHOWN else f'{text[: SHOWN - 3]}...'
