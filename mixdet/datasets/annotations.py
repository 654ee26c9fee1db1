"""A doctor for COCO files: every fault by name, and a repaired copy."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Optional

from mixdet.datasets.issues import Report
from mixdet.errors import UserError

SECTIONS = ('images', 'annotations', 'categories')
LARGEST = 1e8  # px; beyond it, a number is no coordinate
NOTHING = object()


def read_coco(path: Path, report: Report, masks: bool = True) -> dict:
    """The content of a COCO file, with its sections as lists.

    Args:
        path: the file.
        report: notes keys that stand twice in an object, and sections that are missing or no lists.
        masks: keep the outlines; without them a large file needs a third of the memory.

    Raises:
        UserError: if the file cannot be read, or is no JSON object.
    """

    def build(pairs: list[tuple[str, Any]]) -> dict:
        entry = dict(pairs)
        if len(entry) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            report.add('key twice', f'object with id {_short(entry.get("id"))}', f'{twice!r}')
        if not masks and 'segmentation' in entry:
            entry['segmentation'] = [] if _sound_mask(entry['segmentation']) else 'wrong'
        return entry

    try:
        data = json.loads(path.read_bytes(), object_pairs_hook=build)
    except OSError as error:
        raise UserError(f'annotation file {path} cannot be read: {error.strerror}; check the path') from error
    except (ValueError, RecursionError) as error:  # the former also for bytes that are no text
        raise UserError(f'{path} is not valid JSON or is cut off: {str(error) or "nested too deep"}') from error
    if not isinstance(data, dict):
        raise UserError(f'{path} holds a JSON {type(data).__name__} and not an object; is it a COCO file?')
    for section in SECTIONS:
        if section not in data:
            report.add('section missing', 'file', f'{section!r}')
        elif not isinstance(data[section], list):
            report.add('section wrong', 'file', f'{section!r} is a {type(data[section]).__name__}, not a list')
        else:
            continue
        data[section] = []
    return data


def check_coco(
    data: dict, report: Report, classes: Optional[Sequence[str]] = None, progress: Callable[[Iterable], Iterable] = iter
) -> dict:
    """Note every fault of ``data`` in ``report`` and return a repaired copy; ``data`` stays as it is.

    Args:
        data: from ``read_coco``.
        report: takes the faults.
        classes: names of the classes that are trained, if not all.
        progress: wraps the list of annotations to show how far it is.
    """
    categories = _check_categories(data['categories'], report)
    images = _check_images(data['images'], report)
    check = _AnnotationCheck(report, images, categories, classes)
    annotations = [fixed for fixed in map(check, progress(data['annotations'])) if fixed is not None]
    for image_id, image in images.items():
        if image_id not in check.images_used:
            report.add('image empty', f'image {_short(image_id)}', str(image['file_name']))
    for category_id, category in categories.items():
        if category_id not in check.categories_used:
            report.add('category empty', f'category {_short(category_id)}', category['name'])
    report.images, report.boxes, report.kept = len(data['images']), len(data['annotations']), check.kept
    check.number(annotations)
    return dict(data, images=list(images.values()), annotations=annotations, categories=list(categories.values()))


def _check_categories(entries: list, report: Report) -> dict:
    sound, names = {}, set()
    for i, entry in enumerate(entries):
        where = f'categories[{i}]'
        if not isinstance(entry, dict):
            report.add('category wrong', where, f'it is {_short(entry)}')
        elif 'id' not in entry:
            report.add('category id missing', where, _short(entry.get('name', '')))
        elif not _is_id(entry['id']):
            report.add('category id wrong', where, f'id={_short(entry["id"])}')
        elif 'name' not in entry:
            report.add('category name missing', f'category {_short(entry["id"])}')
        elif not isinstance(entry['name'], str) or not entry['name'].strip():
            report.add('category name wrong', f'category {_short(entry["id"])}', f'name={_short(entry["name"])}')
        elif entry['id'] in sound:
            report.add('category id twice', f'category {_short(entry["id"])}', _short(entry['name']))
        elif entry['name'] in names:
            report.add('category name twice', f'category {_short(entry["id"])}', _short(entry['name']))
        else:
            sound[entry['id']] = entry
            names.add(entry['name'])
    return sound


def _check_images(entries: list, report: Report) -> dict:
    sound, names = {}, set()
    for i, entry in enumerate(entries):
        where = f'images[{i}]'
        if not isinstance(entry, dict):
            report.add('image wrong', where, f'it is {_short(entry)}')
            continue
        if 'id' not in entry:
            report.add('image id missing', where, _short(entry.get('file_name', '')))
            continue
        if not _is_id(entry['id']):
            report.add('image id wrong', where, f'id={_short(entry["id"])}')
            continue
        where = f'image {_short(entry["id"])}'
        size = [entry.get(side, NOTHING) for side in ('width', 'height')]
        if entry['id'] in sound:
            report.add('image id twice', where, _short(entry.get('file_name', '')))
        elif 'file_name' not in entry:
            report.add('image name missing', where)
        elif not isinstance(entry['file_name'], str) or not entry['file_name'] or '\0' in entry['file_name']:
            report.add('image name wrong', where, f'file_name={_short(entry["file_name"])}')
        elif NOTHING in size:
            report.add('image size missing', where, entry['file_name'])
        elif not all(_is_number(side) and 1 <= side < LARGEST for side in size):
            report.add('image size wrong', where, f'width={_short(size[0])}, height={_short(size[1])}')
        else:
            if not isinstance(entry['id'], int):
                report.add('image id not an integer', where)
            if entry['file_name'] in names:
                report.add('image name twice', where, entry['file_name'])
            names.add(entry['file_name'])
            sound[entry['id']] = entry
    return sound


class _AnnotationCheck:
    """Checks annotation after annotation; returns a repaired one, or None."""

    def __init__(self, report: Report, images: dict, categories: dict, classes: Optional[Sequence[str]]) -> None:
        self.add = report.add
        self.images, self.categories = images, categories
        self.trained = {key for key, entry in categories.items() if classes is None or entry['name'] in classes}
        self.ids: set = set()
        self.boxes: set = set()
        self.images_used: set = set()
        self.categories_used: set = set()
        self.kept = self.position = 0

    def __call__(self, entry: Any) -> Optional[dict]:
        self.position += 1
        where = f'annotations[{self.position - 1}]'
        if not isinstance(entry, dict):
            return self.add('annotation wrong', where, f'it is {_short(entry)}')
        fixed = dict(entry)
        if 'id' not in entry:
            self.add('annotation id missing', where)
        elif not _is_id(entry['id']):
            self.add('annotation id wrong', where, f'id={_short(entry["id"])}')
            del fixed['id']
        else:
            where = f'annotation {_short(entry["id"])}'
            if entry['id'] in self.ids:
                self.add('annotation id twice', where)
                del fixed['id']
            self.ids.add(entry['id'])
        if not self._has_links(entry, where):
            return None
        box = self._check_box(entry, where)
        if box is None:
            return None
        fixed['bbox'] = box
        large = self._check_area(entry, fixed, where)
        if entry['category_id'] not in self.categories or min(entry['bbox'][2:]) < 1:
            return None
        self._check_rest(entry, fixed, where, large)
        return None if self._is_there(entry, where) else fixed

    def _has_links(self, entry: dict, where: str) -> bool:
        """Whether it has a category and its image is there; MMDetection looks at the box before the category."""
        sound = True
        for key, kind, known in (('image_id', 'image', self.images), ('category_id', 'category', self.categories)):
            value = entry.get(key, NOTHING)
            if value is NOTHING:
                self.add(f'annotation without {key}', where)
                sound = False
            elif not _is_id(value):
                self.add(f'annotation {key} wrong', where, f'{key}={_short(value)}')
                sound = False
            elif value not in known:
                self.add(f'annotation of no {kind}', where, f'{key}={_short(value)}')
                sound = sound and kind != 'image'
        return sound

    def _check_box(self, entry: dict, where: str) -> Optional[list]:
        """The box, clipped to the image, or None."""
        box, image = entry.get('bbox', NOTHING), self.images[entry['image_id']]
        if box is NOTHING:
            return self.add('box missing', where)
        shown = f'bbox={_short(box)}'
        if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(map(_is_real, box)):
            return self.add('box wrong', where, f'{shown} is not [x, y, width, height]')
        if not all(map(_is_number, box)) or max(map(abs, box)) > LARGEST:
            return self.add('box not finite', where, shown)
        x, y, width, height = box
        if width < 0 or height < 0:
            return self.add('box of negative size', where, shown)
        if width == 0 or height == 0:
            return self.add('box of no size', where, shown)
        left, top = max(x, 0), max(y, 0)
        inside = [left, top, min(x + width, image['width']) - left, min(y + height, image['height']) - top]
        if min(inside[2:]) <= 0 or inside[2] * inside[3] == 0:
            return self.add('box outside the image', where, f'{shown} of {image["width"]}x{image["height"]}')
        if width < 1 or height < 1:
            self.add('box below 1 px', where, shown)
            return box
        # half a pixel is rounding
        if max(-x, -y, x + width - image['width'], y + height - image['height']) > 0.5:
            self.add('box partly outside', where, f'{shown} of {image["width"]}x{image["height"]}')
            return inside
        return list(box)

    def _check_area(self, entry: dict, fixed: dict, where: str) -> bool:
        """Whether the area is positive; what is wrong becomes the box's."""
        area = entry.get('area', NOTHING)
        if area is NOTHING:
            self.add('area missing', where)
        elif not _is_number(area):
            self.add('area wrong', where, f'area={_short(area)}')
        elif area > 0:
            return True
        else:
            self.add('area not positive', where, f'area={_short(area)}')
        fixed['area'] = fixed['bbox'][2] * fixed['bbox'][3]
        return False

    def _check_rest(self, entry: dict, fixed: dict, where: str, trained: bool) -> None:
        """Flags, outline and class; counts the boxes that are trained."""
        if not _sound_mask(entry.get('segmentation', [])):
            self.add('segmentation wrong', where)
            del fixed['segmentation']
        crowd = entry.get('iscrowd', 0)
        if crowd not in (0, 1) or isinstance(crowd, float):
            self.add('iscrowd wrong', where, f'iscrowd={_short(crowd)}')
            fixed['iscrowd'] = 0
        elif crowd:
            self.add('crowd', where)
        if entry.get('ignore', False):
            self.add('ignored', where)
            trained = False
        if entry['category_id'] not in self.trained:
            self.add('annotation of another class', where, self.categories[entry['category_id']]['name'])
            trained = False
        self.kept += trained

    def _is_there(self, entry: dict, where: str) -> bool:
        """Whether the same box of the same class came before."""
        self.images_used.add(entry['image_id'])
        self.categories_used.add(entry['category_id'])
        key = (entry['image_id'], entry['category_id'], *entry['bbox'])
        if key in self.boxes:
            self.add('box twice', where)
            return True
        self.boxes.add(key)
        return False

    def number(self, annotations: list[dict]) -> None:
        """Give new ids to those without."""
        new = max((number for number in self.ids if isinstance(number, int)), default=0)
        for entry in annotations:
            if 'id' not in entry:
                new += 1
                entry['id'] = new


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """A real number that is finite; integers beyond all floats are not."""
    return _is_real(value) and (abs(value) <= LARGEST**4 if isinstance(value, int) else math.isfinite(value))


def _sound_mask(mask: Any) -> bool:
    """Polygons of three points or more, or COCO's run lengths."""
    if isinstance(mask, dict):
        return isinstance(mask.get('size'), list) and isinstance(mask.get('counts'), (list, str))
    if not isinstance(mask, list):
        return False
    return all(
        isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0 and all(map(_is_number, part)) for part in mask
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
