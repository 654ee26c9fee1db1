"""Checks of the annotations of a COCO file, one after another."""

from collections import Counter
from typing import Any, Optional

from mixdet.datasets.entries import MISSING, Section
from mixdet.datasets.issues import IssueLog
from mixdet.datasets.values import (
    LARGEST,
    LARGEST_ID,
    as_id,
    as_number,
    is_finite,
    is_hashable,
    is_id,
    is_real,
    is_segmentation,
    shorten,
)

ROUNDING = 0.5  # px that a box may reach over the border of its image


class AnnotationCheck:
    """Checks one annotation after another: each call returns a repaired copy, or None to remove the annotation.

    Args:
        log: gets the issues.
        images, categories: what annotations refer to.
        of_classes: keys of the categories that are used.
        times: how often each image is used, by its key.

    Attributes:
        trained, trained_crowds (Counter): boxes by category's key that MMDetection's ``CocoDataset`` loads as objects,
            and as regions to ignore.
        evaluated, evaluated_crowds (Counter): the same for pycocotools' evaluation.
        images_used (set): keys of the images that have a box.
        categories_used (set): ids, in the repaired copy, of the categories that have one.
    """

    def __init__(
        self, log: IssueLog, images: Section, categories: Section, of_classes: set, times: dict[Any, int]
    ) -> None:
        self.add = log.add
        self.images, self.categories = images, categories
        self.of_classes, self.times = of_classes, times
        self.trained: Counter = Counter()
        self.trained_crowds: Counter = Counter()
        self.evaluated: Counter = Counter()
        self.evaluated_crowds: Counter = Counter()
        self.ids: set = set()
        self.boxes: set = set()
        self.images_used: set = set()
        self.categories_used: set = set()
        self.position = 0

    def __call__(self, entry: Any) -> Optional[dict]:
        """Check one annotation."""
        self.position += 1
        where = f'annotations[{self.position - 1}]'
        if not isinstance(entry, dict):
            self.add('invalid annotation', where, f'it is {shorten(entry)}')
            return None
        fixed = dict(entry)
        where = self._check_id(entry, fixed, where)
        image = self._check_reference(entry, 'image_id', self.images, where)
        category = self._check_reference(entry, 'category_id', self.categories, where)
        if image is MISSING:
            return None
        self._count_evaluated(entry)
        fixed['image_id'] = self.images.entries[image]['id']
        below_1px = self._check_box(entry, fixed, self.images.entries[image], where)
        if below_1px is None:
            return None
        has_area = self._check_area(entry, fixed, where)
        if category is MISSING or below_1px:
            return None
        fixed['category_id'] = self.categories.entries[category]['id']
        self._check_rest(entry, fixed, category, where, has_area)
        self.images_used.add(image)
        self.categories_used.add(fixed['category_id'])
        return None if self._is_duplicate(fixed, where) else fixed

    def _check_id(self, entry: dict, fixed: dict, where: str) -> str:
        """Check the annotation's own id, and remove one that cannot stay; returns the place, named by the id."""
        if 'id' not in entry:
            self.add('missing annotation id', where)
            return where
        value = entry['id']
        number = as_id(value)
        if number is None and not isinstance(value, str):
            self.add('invalid annotation id', where, f'id={shorten(value)}')
            del fixed['id']
            return where
        where = f'annotation {shorten(value)}'
        if not is_id(value):
            self.add('annotation id not an integer', where)
            del fixed['id']
        if value in self.ids:
            self.add('duplicate annotation id', where)
            fixed.pop('id', None)
        self.ids.add(value)
        return where

    def _check_reference(self, entry: dict, name: str, section: Section, where: str) -> Any:
        """The key of what an annotation refers to; MISSING if there is none.

        An unknown category is no reason to stop: MMDetection reads the box first, and fails if that is invalid.
        """
        value = entry.get(name, MISSING)
        if value is MISSING:
            self.add(f'missing {name}', where)
            return MISSING
        key = section.key(value)
        if not (is_id(value) or isinstance(value, str) or as_id(value) is not None):
            self.add(f'invalid {name}', where, f'{name}={shorten(value)}')
        elif key is MISSING:
            self.add(f'unknown {name}', where, f'{name}={shorten(value)}')
        elif key != value:
            self.add(f'{name} of another type', where, f'{name}={shorten(value)}')
        return key

    def _used(self, entry: dict) -> tuple[Any, int]:
        """Key of the category, and how often the box is used, if MMDetection finds its image and category; else 0."""
        image, category = entry.get('image_id'), entry.get('category_id')
        if not is_hashable(image) or not is_hashable(category) or category not in self.of_classes:
            return None, 0
        return category, self.times.get(image, 0)

    def _count_evaluated(self, entry: dict) -> None:
        category, times = self._used(entry)
        if times:
            count = self.evaluated_crowds if entry.get('iscrowd') else self.evaluated
            count[category] += times

    def _check_box(self, entry: dict, fixed: dict, image: dict, where: str) -> Optional[bool]:
        """Put the box, clipped to the image, into ``fixed``; whether it is below 1 px, or None if it is not usable."""
        box = entry.get('bbox', MISSING)
        if box is MISSING:
            self.add('missing box', where)
            box = _around_polygons(entry.get('segmentation'))
            if box is None:
                return None
        shown = f'bbox={shorten(box)}'
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_real, box)):
            self.add('invalid box', where, f'{shown} is not [x, y, width, height]')
            box = [as_number(value) for value in box] if isinstance(box, list) else []
            if len(box) != 4 or not all(map(is_real, box)):
                return None
        if not all(map(is_finite, box)) or max(map(abs, box)) > LARGEST:
            self.add('box not finite', where, shown)
            return None
        x, y, width, height = box
        if width < 0 or height < 0:
            self.add('negative box size', where, shown)
            return None
        if width == 0 or height == 0:
            self.add('zero box size', where, shown)
            return None
        shown = f'{shown} of {image["width"]}x{image["height"]}'
        left, top = max(x, 0), max(y, 0)
        inside = [left, top, min(x + width, image['width']) - left, min(y + height, image['height']) - top]
        if min(inside[2:]) <= 0:
            self.add('box outside the image', where, shown)
            return None
        below_1px = min(width, height) < 1
        fixed['bbox'] = list(box)
        if below_1px:
            self.add('box below 1 px', where, shown)
        elif max(-x, -y, x + width - image['width'], y + height - image['height']) > ROUNDING:
            self.add('box partly outside the image', where, shown)
            fixed['bbox'] = inside
        return below_1px

    def _check_area(self, entry: dict, fixed: dict, where: str) -> bool:
        """Whether the area is positive; any other is replaced by the area of the box."""
        area = entry.get('area', MISSING)
        if area is MISSING:
            self.add('missing area', where)
        elif not is_finite(area):
            self.add('invalid area', where, f'area={shorten(area)}')
        elif area > 0:
            return True
        else:
            self.add('area not positive', where, f'area={shorten(area)}')
        fixed['area'] = fixed['bbox'][2] * fixed['bbox'][3]
        return False

    def _check_rest(self, entry: dict, fixed: dict, category: Any, where: str, trained: bool) -> None:
        """Check segmentation, flags and class, and count the boxes that are trained."""
        if not is_segmentation(entry.get('segmentation', [])):
            self.add('invalid segmentation', where)
            del fixed['segmentation']
        crowd = entry.get('iscrowd', 0)
        if crowd not in (0, 1) or isinstance(crowd, float):
            self.add('invalid iscrowd', where, f'iscrowd={shorten(crowd)}')
            fixed['iscrowd'] = int(as_id(crowd) == 1)
        elif crowd:
            self.add('crowd', where)
        if entry.get('ignore', False):
            self.add('ignored box', where)
            trained = False
        if category not in self.of_classes:
            self.add('class not trained', where, self.categories.entries[category]['name'])
        key, times = self._used(entry)
        if trained and times:
            count = self.trained_crowds if crowd else self.trained
            count[key] += times

    def _is_duplicate(self, fixed: dict, where: str) -> bool:
        """Whether the image already has this box with the same class."""
        key = (fixed['image_id'], fixed['category_id'], *fixed['bbox'])
        if key in self.boxes:
            self.add('duplicate box', where)
            return True
        self.boxes.add(key)
        return False

    def add_ids(self, annotations: list[dict]) -> None:
        """Give new ids to those without one."""
        new = max((number for number in self.ids if is_id(number) and number < LARGEST_ID), default=0)
        for entry in annotations:
            if 'id' not in entry:
                new += 1
                entry['id'] = new


def _around_polygons(segmentation: Any) -> Optional[list]:
    """The box around polygons, or None."""
    if not segmentation or isinstance(segmentation, dict) or not is_segmentation(segmentation):
        return None
    xs = [value for part in segmentation for value in part[::2]]
    ys = [value for part in segmentation for value in part[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
