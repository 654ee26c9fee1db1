"""Holding out a part of a training set, the same images on every machine."""

import hashlib
import math
from collections import Counter, defaultdict
from typing import Any


def hold_out(coco: dict, fraction: float, seed: int = 0) -> tuple[dict, dict]:
    """Two COCO files from the content of one: images to train on, and ``fraction`` of the images, held out.

    Stratified: images are grouped by the rarest of their classes (that of the fewest images), and of each group the
    same fraction is held out. Which ones follows from ``seed`` and the file names alone, so neither the order in the
    file nor the version of a random generator matters.

    Raises:
        ValueError: unless ``fraction`` is above 0 and below 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f'fraction={fraction:g}: must be above 0 and below 1')
    classes: dict[Any, set] = defaultdict(set)
    for annotation in coco['annotations']:
        classes[annotation['image_id']].add(annotation['category_id'])
    images_of = Counter(category for found in classes.values() for category in found)
    groups: dict[Any, list[dict]] = defaultdict(list)
    for image in coco['images']:
        rarest = min(classes[image['id']], key=lambda category: (images_of[category], category), default=None)
        groups[rarest].append(image)
    held_out = set()
    for images in groups.values():
        images.sort(key=lambda image: hashlib.sha256(f'{seed} {image["file_name"]}'.encode()).digest())
        held_out |= {image['id'] for image in images[: math.floor(fraction * len(images) + 0.5)]}
    return _part(coco, held_out, inside=False), _part(coco, held_out, inside=True)


def _part(coco: dict, ids: set, inside: bool) -> dict:
    """``coco`` with only those images whose id is in ``ids``, or is not."""
    return {
        **coco,
        'images': [image for image in coco['images'] if (image['id'] in ids) is inside],
        'annotations': [entry for entry in coco['annotations'] if (entry['image_id'] in ids) is inside],
    }
