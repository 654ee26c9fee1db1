"""COCO's evaluation of boxes or masks, by faster-coco-eval where it is installed, else by pycocotools."""

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mixdet.evaluation.numbers import STATS

BACKENDS = ('auto', 'faster-coco-eval', 'pycocotools')
AREAS = ('all', 'small', 'medium', 'large')  # under 32x32 px, under 96x96 px, above
IOU_THRS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


class CocoEvaluation(NamedTuple):
    """``stats``: the twelve numbers. For IoU thresholds T, recalls R, classes K and areas A, with 100 detections per
    image: ``precision`` (T, R, K, A), the ``scores`` (T, R, K, A) at which it is reached, and ``recall`` (T, K, A); -1
    where there is no such ground truth.
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
    cat_ids: Sequence[int],
    img_ids: Sequence[int],
    backend: str = 'auto',
    iou_type: str = 'bbox',
) -> CocoEvaluation:
    """Evaluate ``detections`` against ``truth``.

    Args:
        truth: ground truth.
        detections: rows of COCO's results format, with a ``bbox``, or for masks a ``segmentation``; not changed.
        cat_ids: categories to evaluate; classes K are in this order.
        img_ids: images to evaluate.
        backend: one of ``BACKENDS``.
        iou_type: 'bbox' or 'segm'.

    Raises:
        ValueError: for another backend.
        ImportError: if faster-coco-eval is asked for by name and not installed.
    """
    evaluator = _evaluator(backend)
    unused = ('bbox',) if iou_type == 'segm' else ()  # COCO would take a mask's size from its box
    rows = [{key: value for key, value in row.items() if key not in unused} for row in detections]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        found = truth.loadRes(rows) if rows else type(truth)()
        coco_eval = evaluator(truth, found, iou_type)
        coco_eval.params.catIds = list(cat_ids)
        coco_eval.params.imgIds = list(img_ids)
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    order = np.searchsorted(np.sort(cat_ids), cat_ids)  # both evaluate in the order of the ids
    results = (
        np.take(coco_eval.eval[key][..., -1], order, axis=axis)
        for key, axis in (('precision', 2), ('scores', 2), ('recall', 1))
    )
    return CocoEvaluation(np.asarray(coco_eval.stats)[: len(STATS)], *results)


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
