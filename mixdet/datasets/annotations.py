"""Checks of a COCO file: every issue by name, and a repaired copy."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

from mixdet.datasets.boxes import AnnotationCheck
from mixdet.datasets.entries import WHOLE, Subset, check_categories, check_images
from mixdet.datasets.issues import EVALUATION, IssueLog
from mixdet.datasets.values import is_hashable, shorten

MOSTLY = 0.5  # share of crowds from which on they are taken for a mistake


class Repair(NamedTuple):
    """What a repaired copy needs beside the file itself.

    Attributes:
        folder: folder of the images, from which missing sizes are read.
        crowds_to_objects: make every crowd an object.
        order: names of the categories that come first, in this order.
    """

    folder: Optional[Path] = None
    crowds_to_objects: bool = False
    order: Sequence[str] = ()


PLAIN = Repair()


def check_coco(
    data: dict,
    log: IssueLog,
    classes: Optional[Sequence[str]] = None,
    progress: Callable[[Iterable], Iterable] = iter,
    subset: Subset = WHOLE,
    repair: Repair = PLAIN,
) -> dict:
    """Add every issue of ``data`` to ``log`` and return a repaired copy; ``data`` itself is not changed.

    Args:
        data: from ``read_coco``.
        log: gets the issues, and the number of images, of boxes, and of those that are used.
        classes: names of the classes that are used; None for all.
        progress: wraps the list of annotations, to show a progress bar.
        subset: the images that are used.
        repair: what the copy needs beside ``data``.
    """
    entries = [entry for entry in data['annotations'] if isinstance(entry, dict)]
    categories = check_categories(data['categories'], log, lambda key: _count(entries, key))
    images = check_images(data['images'], log, repair.folder)
    of_classes = {key for key, entry in categories.entries.items() if classes is None or entry['name'] in classes}
    times = subset.times(images.entries, lambda: _images_with(entries, of_classes), log)
    for key, image in images.entries.items():
        if min(image['width'], image['height']) < subset.min_size:
            log.add('image too small', f'image {shorten(key)}', f'{image["width"]}x{image["height"]}')
    check = AnnotationCheck(log, images, categories, of_classes, times)
    annotations = [fixed for fixed in map(check, progress(data['annotations'])) if fixed is not None]
    check.add_ids(annotations)
    log.images, log.boxes = len(data['images']), len(data['annotations'])
    _check_use(log, check)
    if log.boxes:
        for key, image in images.entries.items():
            if key not in check.images_used:
                log.add('image without boxes', f'image {shorten(key)}', image['file_name'])
        for key, category in categories.entries.items():
            if category['id'] not in check.categories_used:
                log.add('category without boxes', f'category {shorten(key)}', category['name'])
    no_object = all(entry.get('iscrowd') or entry.get('ignore') for entry in annotations)  # CVAT's masks, for example
    if repair.crowds_to_objects or no_object:
        annotations = [dict(entry, iscrowd=0) if entry.get('iscrowd') else entry for entry in annotations]
    unique = {category['id']: category for category in categories.entries.values()}.values()
    places = {name: place for place, name in enumerate(repair.order)}
    ordered = sorted(unique, key=lambda category: places.get(category['name'], len(places)))
    return dict(data, images=list(images.entries.values()), annotations=annotations, categories=ordered)


def _check_use(log: IssueLog, check: AnnotationCheck) -> None:
    """Say it where no box, or hardly any, is used; set the numbers in ``log``."""
    trained, evaluated = check.trained, check.evaluated
    log.trained, log.evaluated = sum(trained.values()), sum(evaluated.values())
    crowds = check.evaluated_crowds if log.role == EVALUATION else check.trained_crowds
    used = evaluated if log.role == EVALUATION else trained
    log.crowds = sum(crowds.values())
    if not log.images:
        log.add('no images', 'file')
    elif not log.boxes:
        log.add('no annotations', 'file')
    elif not log.used and log.crowds:
        log.add('only crowds', 'file', f'all {log.crowds} boxes that could be used are crowds')
    elif not log.used:
        causes = ', '.join(f'{count} x {kind}' for kind, count in _causes(log)[:3])
        log.add('no usable box', 'file', f'{log.boxes} boxes{causes and ": " + causes}')
    else:
        rows = [('file', f'{log.crowds} of {log.used + log.crowds} boxes', log.crowds, log.used)]
        for key, entry in check.categories.entries.items():
            count = f'{entry["name"]}: {crowds[key]} of {crowds[key] + used[key]} boxes'
            rows.append((f'category {shorten(key)}', count, crowds[key], used[key]))
        for where, detail, crowd, other in rows:
            if crowd > MOSTLY * (crowd + other):
                log.add('mostly crowds', where, detail)


def _causes(log: IssueLog) -> list[tuple[str, int]]:
    """The kinds of issue of annotations, the most frequent first."""
    return Counter(issue.kind for issue in log.issues if issue.where.startswith('annotation')).most_common()


def _count(entries: list[dict], key: Any) -> int:
    return sum(entry.get('category_id') == key for entry in entries)


def _images_with(entries: list[dict], categories: set) -> set:
    """The image ids of annotations of the categories, as MMDetection collects them."""
    pairs = ((entry.get('image_id'), entry.get('category_id')) for entry in entries)
    return {
        image for image, category in pairs if is_hashable(image) and is_hashable(category) and category in categories
    }
