"""Checks of the images and categories of a COCO file, their ids, and what the annotations refer to."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

from PIL import Image

from mixdet.datasets.issues import IssueLog
from mixdet.datasets.values import (
    LARGEST,
    LARGEST_ID,
    as_id,
    as_integer,
    as_number,
    is_finite,
    is_hashable,
    is_id,
    shorten,
)

MISSING = object()  # what get() returns for a key that is not there
SIDES = ('width', 'height')


class Section:
    """The images or categories of a file: what annotations refer to.

    Attributes:
        entries (dict): the entries that can be used, with integers for ids, by the id that is in the file.
    """

    def __init__(self, valid: dict[Any, dict]) -> None:
        self.entries = _with_integer_ids(valid)
        self._by_number: dict[int, Any] = {}
        for key in sorted(valid, key=lambda key: not is_id(key)):  # an integer before the same number as text
            number = as_integer(key)
            if number is not None:
                self._by_number.setdefault(number, key)

    def key(self, reference: Any) -> Any:
        """The key in ``entries`` of what ``reference`` means, also if it has another type; MISSING if there is none."""
        if is_hashable(reference) and reference in self.entries:
            return reference
        number = as_integer(reference)
        return MISSING if number is None else self._by_number.get(number, MISSING)


class Subset(NamedTuple):
    """Which images of a file its data set uses, by MMDetection's rules.

    Attributes:
        min_size: smallest side in px; ``filter_cfg.min_size``.
        filter_empty: leave out images without a box of the classes; ``filter_cfg.filter_empty_gt``.
        indices: ``indices`` of the data set: the first (or, if negative, last) so many images, or their places.
    """

    min_size: float = 0
    filter_empty: bool = False
    indices: Any = None

    def times(self, images: dict[Any, dict], with_boxes: Callable[[], set], log: IssueLog) -> dict[Any, int]:
        """How often each image, by its key in ``images``, is in the data set.

        Args:
            images: the valid images.
            with_boxes: gives the keys of the images with an annotation of the classes.
            log: gets places that are none.
        """
        keys = [key for key, image in images.items() if min(image[side] for side in SIDES) >= self.min_size]
        if self.indices is None:
            return dict.fromkeys(keys, 1)  # an image without boxes has none that could be counted
        if self.filter_empty:
            wanted = with_boxes()
            keys = [key for key in keys if key in wanted]
        if isinstance(self.indices, int):
            keys = keys[: self.indices] if self.indices >= 0 else keys[self.indices :]
        else:
            outside = [i for i in self.indices if not -len(keys) <= i < len(keys)]
            if outside:
                log.add('indices out of range', 'indices', f'{outside[0]}, but {len(keys)} images are used')
            keys = [keys[i] for i in self.indices if i not in outside]
        return Counter(keys)


WHOLE = Subset()


def check_categories(entries: list, log: IssueLog, boxes: Callable[[Any], int]) -> Section:
    """The categories; ``boxes`` tells how many annotations have an id. Of one name, that with most boxes stays."""
    valid: dict[Any, dict] = {}
    by_name: dict[str, list] = {}
    for i, entry in enumerate(entries):
        where = _check_id('category', f'categories[{i}]', entry, 'name', log)
        if where is None:
            continue
        name = entry.get('name', MISSING)
        if name is MISSING:
            log.add('missing category name', where)
        elif not isinstance(name, str) or not name.strip():
            log.add('invalid category name', where, f'name={shorten(name)}')
        if entry['id'] in valid:
            log.add('duplicate category id', where, shorten(entry.get('name', '')))
            continue
        if not isinstance(name, str) or not name.strip():
            is_number = isinstance(name, (int, float)) and not isinstance(name, bool)
            entry = dict(entry, name=str(name) if is_number else f'category {entry["id"]}')
        if entry['name'] in by_name:
            log.add('duplicate category name', where, shorten(entry['name']))
        by_name.setdefault(entry['name'], []).append(entry['id'])
        valid[entry['id']] = entry
    section = Section(valid)
    for same in by_name.values():
        if len(same) > 1:
            best = section.entries[max(same, key=boxes)]
            section.entries.update(dict.fromkeys(same, best))
    return section


def check_images(entries: list, log: IssueLog, folder: Optional[Path] = None) -> Section:
    """The images; a size that is missing or invalid is read from the image file in ``folder``, if it is there."""
    valid: dict[Any, dict] = {}
    names = set()
    for i, entry in enumerate(entries):
        where = _check_id('image', f'images[{i}]', entry, 'file_name', log)
        if where is None:
            continue
        if entry['id'] in valid:
            log.add('duplicate image id', where, shorten(entry.get('file_name', '')))
            continue
        name = entry.get('file_name', MISSING)
        if name is MISSING:
            log.add('missing file name', where)
            continue
        if not isinstance(name, str) or not name or '\0' in name:
            log.add('invalid file name', where, f'file_name={shorten(name)}')
            continue
        entry = _with_size(entry, where, log, folder)
        if entry is None:
            continue
        if name in names:
            log.add('duplicate file name', where, name)
        names.add(name)
        valid[entry['id']] = entry
    return Section(valid)


def is_size(value: Any) -> bool:
    """Whether ``value`` can be the width or height of an image in px."""
    return is_finite(value) and 1 <= value < LARGEST


def _check_id(what: str, where: str, entry: Any, label: str, log: IssueLog) -> Optional[str]:
    """The place of an entry, named by its id; None if it is no entry, or has no id that anything can refer to."""
    if not isinstance(entry, dict):
        log.add(f'invalid {what}', where, f'it is {shorten(entry)}')
        return None
    value = entry.get('id', MISSING)
    if value is MISSING:
        log.add(f'missing {what} id', where, shorten(entry.get(label, '')))
        return None
    place = f'{what} {shorten(value)}'
    if is_id(value):
        return place
    if isinstance(value, str) or as_id(value) is not None:
        log.add(f'{what} id not an integer', place)
        return place
    log.add(f'invalid {what} id', where, f'id={shorten(value)}')
    return where if is_hashable(value) else None


def _with_size(entry: dict, where: str, log: IssueLog, folder: Optional[Path]) -> Optional[dict]:
    """``entry`` with a valid width and height, or None if they are not known."""
    size = [entry.get(side, MISSING) for side in SIDES]
    if all(map(is_size, size)):
        return entry
    if MISSING in size:
        log.add('missing image size', where, entry['file_name'])
    else:
        log.add('invalid image size', where, f'width={shorten(size[0])}, height={shorten(size[1])}')
    known: Sequence = [as_number(side) for side in size]
    if not all(map(is_size, known)) and folder is not None:
        try:
            with Image.open(folder / entry['file_name']) as file:
                known = file.size
        except Exception:  # whatever is wrong with the file is reported where files are checked
            return None
    return dict(entry, **dict(zip(SIDES, known))) if all(map(is_size, known)) else None


def _with_integer_ids(valid: dict[Any, dict]) -> dict[Any, dict]:
    """The same entries with integer ids: converted where that is possible without a clash, else new ones."""
    taken = {key for key in valid if is_id(key)}
    numbers = {number for number in map(as_id, valid) if number is not None and number < LARGEST_ID}
    new = itertools.count(max(numbers, default=0) + 1)
    result = {}
    for key, entry in valid.items():
        if not is_id(key):
            number = as_id(key)
            if number is None or number in taken:
                number = next(new)
            taken.add(number)
            entry = dict(entry, id=number)
        result[key] = entry
    return result
