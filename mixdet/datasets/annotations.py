"""Checks of a COCO file: every issue by name, and a repaired copy."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Optional

from mixdet.datasets.issues import IssueLog
from mixdet.datasets.values import LARGEST, is_finite, is_id, is_real, is_segmentation, shorten
from mixdet.errors import UserError

SECTIONS = ('images', 'annotations', 'categories')
ROUNDING = 0.5  # px that a box may reach over the border of its image
MISSING = object()  # what get() returns for a key that is not there


def read_coco(path: Path, log: Optional[IssueLog] = None, segmentations: bool = True) -> dict:
    """The content of a COCO file, with its sections as lists; an invalid section becomes an empty list.

    Args:
        path: the file.
        log: gets duplicate keys of an object, and missing or invalid sections.
        segmentations: keep the segmentations; a large file needs a third of the memory without them.

    Raises:
        UserError: if the file cannot be read, or is not a JSON object.
    """
    log = IssueLog(str(path)) if log is None else log

    def build(pairs: list[tuple[str, Any]]) -> dict:
        entry = dict(pairs)
        if len(entry) != len(pairs):
            names = [name for name, _ in pairs]
            duplicate = next(name for name in names if names.count(name) > 1)
            log.add('duplicate key', f'object with id {shorten(entry.get("id"))}', f'{duplicate!r}')
        if not segmentations and 'segmentation' in entry:
            entry['segmentation'] = [] if is_segmentation(entry['segmentation']) else 'invalid'
        return entry

    try:
        data = json.loads(path.read_bytes(), object_pairs_hook=build)
    except OSError as error:
        raise UserError(f'annotation file {path} cannot be read: {error.strerror}; check the path') from error
    except (ValueError, RecursionError) as error:  # ValueError also for bytes that are not text
        raise UserError(f'{path} is not valid JSON or is truncated: {str(error) or "nested too deep"}') from error
    if not isinstance(data, dict):
        raise UserError(f'{path} holds a JSON {type(data).__name__}, not an object; is it a COCO file?')
    for section in SECTIONS:
        if section not in data:
            log.add('missing section', 'file', f'{section!r}')
        elif not isinstance(data[section], list):
            log.add('invalid section', 'file', f'{section!r} is a {type(data[section]).__name__}, not a list')
        else:
            continue
        data[section] = []
    return data


def check_coco(
    data: dict, log: IssueLog, classes: Optional[Sequence[str]] = None, progress: Callable[[Iterable], Iterable] = iter
) -> dict:
    """Add every issue of ``data`` to ``log`` and return a repaired copy; ``data`` itself is not changed.

    Args:
        data: from ``read_coco``.
        log: gets the issues and the number of images, boxes and trained boxes.
        classes: names of the classes that are trained; None for all.
        progress: wraps the list of annotations, to show a progress bar.
    """
    categories = _check_categories(data['categories'], log)
    images = _check_images(data['images'], log)
    check = _AnnotationCheck(log, images, categories, classes)
    annotations = [fixed for fixed in map(check, progress(data['annotations'])) if fixed is not None]
    for image_id, image in images.items():
        if image_id not in check.images_used:
            log.add('image without boxes', f'image {shorten(image_id)}', image['file_name'])
    for category_id, category in categories.items():
        if category_id not in check.categories_used:
            log.add('category without boxes', f'category {shorten(category_id)}', category['name'])
    log.images, log.boxes, log.trained = len(data['images']), len(data['annotations']), check.trained
    check.add_ids(annotations)
    return dict(data, images=list(images.values()), annotations=annotations, categories=list(categories.values()))


def _check_categories(entries: list, log: IssueLog) -> dict[Any, dict]:
    """The valid categories by id."""
    valid: dict[Any, dict] = {}
    names = set()
    for i, entry in enumerate(entries):
        where = f'categories[{i}]'
        if not isinstance(entry, dict):
            log.add('invalid category', where, f'it is {shorten(entry)}')
            continue
        if 'id' not in entry:
            log.add('missing category id', where, shorten(entry.get('name', '')))
            continue
        if not is_id(entry['id']):
            log.add('invalid category id', where, f'id={shorten(entry["id"])}')
            continue
        where = f'category {shorten(entry["id"])}'
        if 'name' not in entry:
            log.add('missing category name', where)
        elif not isinstance(entry['name'], str) or not entry['name'].strip():
            log.add('invalid category name', where, f'name={shorten(entry["name"])}')
        elif entry['id'] in valid:
            log.add('duplicate category id', where, shorten(entry['name']))
        elif entry['name'] in names:
            log.add('duplicate category name', where, shorten(entry['name']))
        else:
            valid[entry['id']] = entry
            names.add(entry['name'])
    return valid


def _check_images(entries: list, log: IssueLog) -> dict[Any, dict]:
    """The valid images by id."""
    valid: dict[Any, dict] = {}
    names = set()
    for i, entry in enumerate(entries):
        where = f'images[{i}]'
        if not isinstance(entry, dict):
            log.add('invalid image', where, f'it is {shorten(entry)}')
            continue
        if 'id' not in entry:
            log.add('missing image id', where, shorten(entry.get('file_name', '')))
            continue
        if not is_id(entry['id']):
            log.add('invalid image id', where, f'id={shorten(entry["id"])}')
            continue
        where = f'image {shorten(entry["id"])}'
        size = [entry.get(side, MISSING) for side in ('width', 'height')]
        if entry['id'] in valid:
            log.add('duplicate image id', where, shorten(entry.get('file_name', '')))
        elif 'file_name' not in entry:
            log.add('missing file name', where)
        elif not isinstance(entry['file_name'], str) or not entry['file_name'] or '\0' in entry['file_name']:
            log.add('invalid file name', where, f'file_name={shorten(entry["file_name"])}')
        elif MISSING in size:
            log.add('missing image size', where, entry['file_name'])
        elif not all(is_finite(side) and 1 <= side < LARGEST for side in size):
            log.add('invalid image size', where, f'width={shorten(size[0])}, height={shorten(size[1])}')
        else:
            if not isinstance(entry['id'], int):
                log.add('image id not an integer', where)
            if entry['file_name'] in names:
                log.add('duplicate file name', where, entry['file_name'])
            names.add(entry['file_name'])
            valid[entry['id']] = entry
    return valid


class _AnnotationCheck:
    """Checks one annotation after another: each call returns a repaired copy, or None to remove the annotation."""

    def __init__(
        self, log: IssueLog, images: dict[Any, dict], categories: dict[Any, dict], classes: Optional[Sequence[str]]
    ) -> None:
        self.add = log.add
        self.images, self.categories = images, categories
        self.trained_ids = {key for key, entry in categories.items() if classes is None or entry['name'] in classes}
        self.ids: set = set()
        self.boxes: set = set()
        self.images_used: set = set()
        self.categories_used: set = set()
        self.trained = self.position = 0

    def __call__(self, entry: Any) -> Optional[dict]:
        self.position += 1
        where = f'annotations[{self.position - 1}]'
        if not isinstance(entry, dict):
            self.add('invalid annotation', where, f'it is {shorten(entry)}')
            return None
        fixed = dict(entry)
        if 'id' not in entry:
            self.add('missing annotation id', where)
        elif not is_id(entry['id']):
            self.add('invalid annotation id', where, f'id={shorten(entry["id"])}')
            del fixed['id']
        else:
            where = f'annotation {shorten(entry["id"])}'
            if entry['id'] in self.ids:
                self.add('duplicate annotation id', where)
                del fixed['id']
            self.ids.add(entry['id'])
        if not self._has_image(entry, where):
            return None
        box = self._check_box(entry, where)
        if box is None:
            return None
        fixed['bbox'] = box
        has_area = self._check_area(entry, fixed, where)
        if entry['category_id'] not in self.categories or min(entry['bbox'][2:]) < 1:
            return None
        self._check_rest(entry, fixed, where, has_area)
        return None if self._is_duplicate(entry, where) else fixed

    def _has_image(self, entry: dict, where: str) -> bool:
        """Check both references; whether the image is known and the category is valid.

        An unknown category is no reason to stop: MMDetection reads the box first, and fails if that is invalid.
        """
        valid = True
        for key, known in (('image_id', self.images), ('category_id', self.categories)):
            value = entry.get(key, MISSING)
            if value is MISSING:
                self.add(f'missing {key}', where)
                valid = False
            elif not is_id(value):
                self.add(f'invalid {key}', where, f'{key}={shorten(value)}')
                valid = False
            elif value not in known:
                self.add(f'unknown {key}', where, f'{key}={shorten(value)}')
                valid = valid and key != 'image_id'
        return valid

    def _check_box(self, entry: dict, where: str) -> Optional[list]:
        """The box, clipped to the image, or None if it is not usable."""
        box, image = entry.get('bbox', MISSING), self.images[entry['image_id']]
        if box is MISSING:
            self.add('missing box', where)
            return None
        shown = f'bbox={shorten(box)}'
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_real, box)):
            self.add('invalid box', where, f'{shown} is not [x, y, width, height]')
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
        if width < 1 or height < 1:
            self.add('box below 1 px', where, shown)
        elif max(-x, -y, x + width - image['width'], y + height - image['height']) > ROUNDING:
            self.add('box partly outside the image', where, shown)
            return inside
        return list(box)

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

    def _check_rest(self, entry: dict, fixed: dict, where: str, trained: bool) -> None:
        """Check segmentation, flags and class, and count the boxes that are trained."""
        if not is_segmentation(entry.get('segmentation', [])):
            self.add('invalid segmentation', where)
            del fixed['segmentation']
        crowd = entry.get('iscrowd', 0)
        if crowd not in (0, 1) or isinstance(crowd, float):
            self.add('invalid iscrowd', where, f'iscrowd={shorten(crowd)}')
            fixed['iscrowd'] = 0
        elif crowd:
            self.add('crowd', where)
        if entry.get('ignore', False):
            self.add('ignored box', where)
            trained = False
        if entry['category_id'] not in self.trained_ids:
            self.add('class not trained', where, self.categories[entry['category_id']]['name'])
            trained = False
        self.trained += trained

    def _is_duplicate(self, entry: dict, where: str) -> bool:
        """Whether the image already has this box with the same class."""
        self.images_used.add(entry['image_id'])
        self.categories_used.add(entry['category_id'])
        key = (entry['image_id'], entry['category_id'], *entry['bbox'])
        if key in self.boxes:
            self.add('duplicate box', where)
            return True
        self.boxes.add(key)
        return False

    def add_ids(self, annotations: list[dict]) -> None:
        """Give new ids to those without one."""
        new = max((number for number in self.ids if isinstance(number, int)), default=0)
        for entry in annotations:
            if 'id' not in entry:
                new += 1
                entry['id'] = new
