"""COCO's evaluation of boxes or masks, by faster-coco-eval where it is installed, else by pycocotools."""

import contextlib
import importlib.util
import io
from collections.abc import Hashable, Sequence
from numbers import Real
from typing import NamedTuple, Optional

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import area as mask_area

BACKENDS = ('auto', 'faster-coco-eval', 'pycocotools')
AREAS = ('all', 'small', 'medium', 'large')  # under 32x32 px, under 96x96 px, above
IOU_THRS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MAX_DETS = (1, 10, 100)  # detections per image


class CocoEvaluation(NamedTuple):
    """``stats``: the numbers that ``numbers.stat_names`` names. For IoU thresholds T, recalls R, classes K and areas A,
    with the largest number of detections per image: ``precision`` (T, R, K, A), the ``scores`` (T, R, K, A) at which it
    is reached, and ``recall`` (T, K, A); -1 where there is no such ground truth.
    """

    stats: np.ndarray
    precision: np.ndarray
    scores: np.ndarray
    recall: np.ndarray

    def class_ap(self, iou: slice = slice(None), area: int = 0) -> list[float]:
        """AP of each class, mean over the thresholds ``iou``; -1 where there is no such ground truth."""
        return [known_mean(values) for values in np.moveaxis(self.precision[iou, :, :, area], 2, 0)]


def known_mean(values: np.ndarray) -> float:
    """Mean of ``values`` without COCO's -1 for the unknown; -1 if there is none."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def evaluate_coco(
    truth: COCO,
    detections: list[dict],
    cat_ids: Sequence[Hashable],
    img_ids: Sequence[Hashable],
    backend: str = 'auto',
    iou_type: str = 'bbox',
    max_dets: Sequence[int] = MAX_DETS,
    iou_thrs: Optional[Sequence[float]] = None,
) -> CocoEvaluation:
    """Evaluate ``detections`` against ``truth``, whatever its ids: zero, negative, text, or the same one twice.

    Args:
        truth: ground truth.
        detections: rows of COCO's results format, with a ``bbox``, or for masks a ``segmentation``; not changed. Those
            in other images and of other categories are left out.
        cat_ids: categories to evaluate; classes K are in this order.
        img_ids: images to evaluate; what ``truth`` has in others does not count.
        backend: one of ``BACKENDS``.
        iou_type: 'bbox' or 'segm'.
        max_dets: limits on the detections per image, best first, ascending. AR is given for each, all else for the
            largest.
        iou_thrs: IoU thresholds T, ascending; COCO's .50:.95 by default.

    Raises:
        ValueError: for another backend.
        ImportError: if faster-coco-eval is asked for by name and not installed.
    """
    evaluator = _evaluator(backend)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        expected, *ids = renumber(truth, cat_ids, img_ids, iou_type)
        rows = [_renumbered(row, *ids) for row in detections if _is_evaluated(row, *ids)]
        if iou_type == 'segm':  # COCO would take a mask's size from its box
            rows = [{key: value for key, value in row.items() if key != 'bbox'} for row in rows]
        coco_eval = evaluator(expected, expected.loadRes(rows) if rows else COCO(), iou_type)
        coco_eval.params.maxDets = list(max_dets)
        coco_eval.params.iouThrs = np.array(IOU_THRS if iou_thrs is None else iou_thrs, float)
        coco_eval.evaluate()
        coco_eval.accumulate()
    precision, scores, recall = (np.asarray(coco_eval.eval[key]) for key in ('precision', 'scores', 'recall'))
    stats = _stats(precision[..., -1], recall, coco_eval.params.iouThrs)
    return CocoEvaluation(stats, precision[..., -1], scores[..., -1], recall[..., -1])


def renumber(
    truth: COCO, cat_ids: Sequence[Hashable], img_ids: Sequence[Hashable], iou_type: str = 'bbox'
) -> tuple[COCO, dict, dict]:
    """``truth`` of these images and categories alone, all ids counted from 1 in the order given; the new id of each
    image, and of each category.

    Both backends take an annotation of id 0 for none, sort ids, and cannot keep two annotations of one id apart.
    """
    images = {image_id: number for number, image_id in enumerate(dict.fromkeys(img_ids), 1)}
    categories = {cat_id: number for number, cat_id in enumerate(dict.fromkeys(cat_ids), 1)}
    known = {image['id']: image for image in truth.dataset.get('images', ()) if image['id'] in images}
    rows = [row for row in truth.dataset.get('annotations', ()) if _is_evaluated(row, images, categories)]
    renumbered = COCO()
    renumbered.dataset = dict(
        images=[{**known.get(image_id, {}), 'id': number} for image_id, number in images.items()],
        categories=[dict(id=number, name=str(cat_id)) for cat_id, number in categories.items()],
        annotations=[{**_renumbered(row, images, categories), 'id': number} for number, row in enumerate(rows, 1)],
    )
    renumbered.createIndex()
    for annotation in renumbered.dataset['annotations']:
        annotation['iscrowd'] = int(bool(annotation.get('iscrowd')))
        if not isinstance(annotation.get('area'), Real):
            annotation['area'] = _area(renumbered, annotation, iou_type)
    return renumbered, images, categories


def _renumbered(row: dict, images: dict, categories: dict) -> dict:
    return {**row, 'image_id': images[row['image_id']], 'category_id': categories[row['category_id']]}


def _is_evaluated(row: dict, images: dict, categories: dict) -> bool:
    return row['image_id'] in images and row['category_id'] in categories


def _area(truth: COCO, annotation: dict, iou_type: str) -> float:
    if iou_type == 'segm':
        return float(mask_area(truth.annToRLE(annotation)))
    return float(annotation['bbox'][2] * annotation['bbox'][3])


def _stats(precision: np.ndarray, recall: np.ndarray, iou_thrs: np.ndarray) -> np.ndarray:
    """The numbers from precision (T, R, K, A) and recall (T, K, A, limits), in the order of ``stat_names``."""
    sizes = range(1, len(AREAS))
    return np.array(
        [
            known_mean(precision[..., 0]),
            *(known_mean(precision[np.isclose(iou_thrs, iou), :, :, 0]) for iou in (0.5, 0.75)),
            *(known_mean(precision[..., size]) for size in sizes),
            *(known_mean(recall[:, :, 0, limit]) for limit in range(recall.shape[-1])),
            *(known_mean(recall[:, :, size, -1]) for size in sizes),
        ]
    )


def _evaluator(backend: str) -> type:
    if backend not in BACKENDS:
        raise ValueError(f'backend={backend!r}: must be one of {BACKENDS}')
    installed = importlib.util.find_spec('faster_coco_eval') is not None
    if backend == 'faster-coco-eval' and not installed:
        raise ImportError("backend='faster-coco-eval': install it with pip install faster-coco-eval, or use 'auto'")
    if backend == 'pycocotools' or not installed:
        return COCOeval
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster

    return COCOeval_faster
