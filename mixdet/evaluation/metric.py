"""COCO evaluation of boxes and masks: the twelve numbers and AP per class, unrounded."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmengine.logging import MMLogger

from mixdet.errors import UserError
from mixdet.evaluation.coco import BACKENDS, CocoEvaluation, evaluate_coco
from mixdet.evaluation.details import Details, build_details
from mixdet.evaluation.numbers import IOU_TYPES, STATS, CocoNumbers, IouTypeNumbers
from mixdet.registry import METRICS


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """MMDetection's ``CocoMetric`` with all of pycocotools' numbers.

    The metrics ``bbox`` and ``segm`` give the twelve COCO numbers as ``bbox_mAP`` ... ``bbox_AR_l@100`` and
    ``segm_mAP`` ..., and AP per class as ``<class>_precision`` for boxes and ``segm_<class>_precision`` for masks, all
    unrounded; -1 where there is no such ground truth. Limits (1, 10 and 100 detections per image) and IoU thresholds
    are pycocotools' own, whatever ``proposal_nums`` and ``iou_thrs`` say. No detection at all scores 0 with a warning
    (MMDetection logs an error and returns nothing, so that no best checkpoint is saved). With ``proposal``,
    ``proposal_fast`` or ``format_only`` everything is as in MMDetection.

    ``details`` holds what stands behind the last evaluation of boxes, on the process that computed it.

    Args:
        backend: 'faster-coco-eval' or 'pycocotools'; 'auto' takes the first if it is installed.
        score_thr: lowest score of a detection in the confusion matrix and the images of ``details``.
        **kwargs: as in MMDetection.

    Raises:
        ValueError: for another backend.
        UserError: for ``segm`` if the annotation file has an object without a mask.
    """

    _coco_api: Optional[COCO]

    def __init__(self, *args: Any, backend: str = 'auto', score_thr: float = 0.3, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if backend not in BACKENDS:
            raise ValueError(f'backend={backend!r}: must be one of {BACKENDS}')
        if 'segm' in self.metrics and self._coco_api is not None:
            _check_masks(self._coco_api, kwargs.get('ann_file') or args[0])
        self.backend = backend
        self.score_thr = score_thr
        self.details: Optional[Details] = None

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Collect as MMDetection does, and remember where the images lie."""
        super().process(data_batch, data_samples)
        for (_, prediction), sample in zip(self.results[-len(data_samples) :], data_samples):
            prediction['img_path'] = sample.get('img_path')

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The numbers above from what ``process`` collected. Raises UserError for ``segm`` without predicted masks."""
        if self.format_only or not set(self.metrics) <= set(IOU_TYPES):
            return super().compute_metrics(results)
        if self._coco_api is None:
            self._coco_api = self._convert_truth([truth for truth, _ in results])
        classes = self.dataset_meta['classes']
        self.cat_ids = self._coco_api.get_cat_ids(cat_names=classes)
        self.img_ids = self._coco_api.get_img_ids()
        predictions = [prediction for _, prediction in results]
        if self.outfile_prefix is not None:
            self.results2json(predictions, self.outfile_prefix)
        if not any(len(prediction['labels']) for prediction in predictions):
            MMLogger.get_current_instance().warning('No detection passed test_cfg.score_thr: every AP is 0.')
        bbox, segm = (self._evaluate(predictions, name) if name in self.metrics else None for name in IOU_TYPES)
        if bbox is not None:
            self.details = build_details(self._coco_api, predictions, classes, self.cat_ids, self.score_thr, bbox, segm)
        return CocoNumbers(_numbers(bbox, classes), _numbers(segm, classes)).to_metrics()

    def _convert_truth(self, truth: list[dict]) -> COCO:
        """Ground truth from what the data set gave, where there is no annotation file."""
        with tempfile.TemporaryDirectory() as folder:
            return COCO(self.gt_to_coco_json(truth, str(Path(folder, 'truth'))))

    def _evaluate(self, predictions: list[dict], iou_type: str) -> CocoEvaluation:
        rows = [row for prediction in predictions for row in self._rows(prediction, iou_type)]
        return evaluate_coco(self._coco_api, rows, self.cat_ids, self.img_ids, self.backend, iou_type)

    def _rows(self, prediction: dict, iou_type: str) -> list[dict]:
        """An image's detections in COCO's results format."""
        if iou_type == 'segm':
            if 'masks' not in prediction:
                raise UserError("test_evaluator.metric: 'segm' is for detectors that predict masks; use 'bbox'")
            shapes = [dict(segmentation=mask) for mask in prediction['masks']]
            scores = prediction.get('mask_scores', prediction['scores'])
        else:
            corners = np.float64(prediction['bboxes'])
            shapes = [dict(bbox=[x1, y1, x2 - x1, y2 - y1]) for x1, y1, x2, y2 in corners.tolist()]
            scores = prediction['scores']
        return [
            dict(image_id=prediction['img_id'], category_id=self.cat_ids[label], score=float(score), **shape)
            for shape, score, label in zip(shapes, scores, prediction['labels'])
        ]


def _numbers(evaluation: Optional[CocoEvaluation], classes: Sequence[str]) -> IouTypeNumbers:
    if evaluation is None:
        return IouTypeNumbers()
    stats = dict(zip(STATS, map(float, evaluation.stats)))
    return IouTypeNumbers(stats, dict(zip(classes, evaluation.class_ap())))


def _check_masks(truth: COCO, ann_file: str) -> None:
    annotations = truth.dataset.get('annotations', ())
    missing = sum(not annotation.get('segmentation') for annotation in annotations)
    if missing:
        raise UserError(
            f'{ann_file}: {missing} of {len(annotations)} objects have no segmentation, which the metric '
            "'segm' needs; add them, or evaluate 'bbox' alone"
        )
