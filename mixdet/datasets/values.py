"""Tests for single values of a COCO file, which can hold anything that JSON can."""

import math
import re
from numbers import Real
from typing import Any, Optional

LARGEST = 1e8  # px; a larger number cannot be a coordinate
LARGEST_ID = 2**63 - 1  # evaluators keep ids as 64-bit integers
SHOWN = 60  # characters of a value in a message
INTEGER = re.compile(r'\s*([+-]?[0-9]{1,400})(\.0*)?\s*')
NUMBER = re.compile(r'\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*')


def is_id(value: Any) -> bool:
    """Whether ``value`` is an integer that can be the id of an image, category or annotation."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_ID


def as_integer(value: Any) -> Optional[int]:
    """The integer that ``value`` is, also if it is written as text ("1") or as a float (1.0); otherwise None."""
    if isinstance(value, str):
        match = INTEGER.fullmatch(value)
        return int(match[1]) if match else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_id(value: Any) -> Optional[int]:
    """``value`` as an id, also if it is written as text or as a float; otherwise None."""
    number = as_integer(value)
    return number if is_id(number) else None


def is_hashable(value: Any) -> bool:
    """Whether ``value`` can be the key of a dict, in which MMDetection and pycocotools look ids up."""
    return not isinstance(value, (list, dict))


def is_real(value: Any) -> bool:
    """Whether ``value`` is a number, possibly infinite or NaN."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether ``value`` is a finite number; an integer too large for a float is not."""
    return is_real(value) and (abs(value) <= LARGEST**4 if isinstance(value, int) else math.isfinite(value))


def as_number(value: Any) -> Any:
    """The number that a text such as "12.5" stands for; any other value as it is."""
    if isinstance(value, str) and NUMBER.fullmatch(value):
        number = float(value)
        return int(number) if number.is_integer() else number
    return value


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
