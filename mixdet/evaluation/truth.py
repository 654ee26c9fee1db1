"""Whether the ground truth is that of the images that were evaluated."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Optional

from mmengine.config import Config
from pycocotools.coco import COCO

from mixdet.datasets.files import coco_files
from mixdet.errors import UserError

Result = tuple[dict, dict]  # of an image, as CocoMetric collects it: ground truth, prediction


def check_ground_truth(cfg: Config, parts: Iterable[str]) -> None:
    """Check for each of ``parts`` ('val', 'test') that evaluator and data set of ``cfg`` have the same ground truth.

    They name an annotation file each. Two files are accepted if all images of the data set's are in the evaluator's,
    with the same boxes. Evaluators and data sets that are not COCO's, or lie in remote storage, are left out.

    Raises:
        UserError: if the two differ, with both files and the first difference.
    """
    for part in parts:
        evaluators = cfg.get(f'{part}_evaluator') or []
        for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
            ann_file, kind = evaluator.get('ann_file'), evaluator.get('type')
            if not str(getattr(kind, '__name__', kind)).endswith('CocoMetric'):
                continue
            if not ann_file or '://' in str(ann_file):
                continue
            for file in coco_files(cfg, (part,)) if cfg.get(f'{part}_dataloader') else ():
                difference = _difference(file.path, Path(ann_file))
                if difference:
                    key = f'{part}_evaluator.ann_file'
                    raise UserError(
                        f'{key} is {ann_file}, but {file.key} reads {file.path}: {difference}; '
                        f'set {key}={file.path} if that holds the ground truth'
                    )


def seen_images(results: Sequence[Result], truth: COCO, ann_file: str) -> list[Result]:
    """``results`` with each image once.

    Raises:
        UserError: if an image is not in ``truth``, has another file name there, or two have the same id.
    """
    seen: dict = {}
    for result in results:
        image_id, path = result[1]['img_id'], result[1].get('img_path')
        image = truth.imgs.get(image_id)
        cure = 'set ann_file of the evaluator to the annotation file of its data set'
        if image is None:
            raise UserError(f'{ann_file} has no image with the id {image_id!r}, which is {path}; {cure}')
        name = image.get('file_name')
        if path and name and _last_part(path) != _last_part(name):
            raise UserError(f'{ann_file}: the image with the id {image_id!r} is {name}, but {path} was read; {cure}')
        known = seen.setdefault(image_id, result)[1].get('img_path')
        if known != path:
            raise UserError(
                f'{known} and {path} have the same id {image_id!r}; evaluate their data sets one by one, or leave out '
                'ann_file of the evaluator'
            )
    return list(seen.values())


def _last_part(path: object) -> str:
    """The name of a file: other systems' annotation files have backslashes, and here a name may hold one."""
    return re.split(r'[/\\]', str(path))[-1]


def number_images(results: Sequence[Result]) -> list[Result]:
    """``results`` with new image ids, as several data sets may use the same ones."""
    return [
        ({**truth, 'img_id': number}, {**prediction, 'img_id': number})
        for number, (truth, prediction) in enumerate(results, 1)
    ]


def category_ids(truth: COCO, classes: Sequence[str], ann_file: str) -> list:
    """The ids of ``classes`` in ``truth``, in the file's order, which is that of MMDetection's labels.

    Raises UserError if it lacks a class.
    """
    names = [category['name'] for category in truth.dataset.get('categories', ())]
    missing = [name for name in classes if name not in names]
    if missing:
        raise UserError(
            f'{ann_file} has no category {missing[0]!r}, which is a class of the data set; it has '
            f'{", ".join(map(str, names[:10])) or "none"}'
        )
    return truth.getCatIds(catNms=list(classes))


def _difference(images_file: Path, truth_file: Path) -> Optional[str]:
    """What the images of one file are in the other; None if the same, or if a file cannot be read."""
    try:
        if images_file.samefile(truth_file):
            return None
        (images, boxes), (others, truth) = _read(images_file), _read(truth_file)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # the check of the data or the evaluator says what is wrong
    for image_id, name in images.items():
        if image_id not in others:
            return f'the former has no image with the id {image_id!r} ({name})'
        if others[image_id] != name:
            return f'the image with the id {image_id!r} is {others[image_id]} in the former and {name} in the latter'
        if boxes is not None and truth is not None and truth[image_id] != boxes[image_id]:
            return f'the boxes of image {image_id!r} ({name}) differ'
    return None


def _read(path: Path) -> tuple[dict, Optional[dict]]:
    """File names by image id, and for each sorted boxes with their classes; None if the file has no annotations."""
    content = json.loads(path.read_bytes())
    images = {image['id']: str(image['file_name']) for image in content['images']}
    if 'annotations' not in content:
        return images, None
    names = {category['id']: str(category['name']) for category in content['categories']}
    boxes = defaultdict(list)
    for entry in content['annotations']:
        corners = [round(float(value), 2) for value in entry['bbox']]
        boxes[entry['image_id']].append((names[entry['category_id']], corners, bool(entry.get('iscrowd'))))
    return images, defaultdict(list, {image_id: sorted(of_image) for image_id, of_image in boxes.items()})
