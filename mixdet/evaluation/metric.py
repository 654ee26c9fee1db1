"""COCO evaluation of boxes: the twelve numbers and AP per class, unrounded."""

from collections.abc import Sequence
from typing import Optional

import numpy as np
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmengine.logging import MMLogger

from mixdet.evaluation.coco import BACKENDS, STATS, evaluate_boxes
from mixdet.evaluation.details import Details, build_details
from mixdet.registry import METRICS

CLASS_SUFFIX = '_precision'  # after the class's name, as MMDetection's ``classwise`` has it


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """MMDetection's ``CocoMetric`` with pycocotools' own limits (1, 10, 100 detections) and all of its numbers.

    ``bbox`` gives the twelve COCO numbers as ``bbox_mAP`` ... ``bbox_AR_l@100`` and AP per class as
    ``<class>_precision``, unrounded; -1 where there is no such ground truth. No detection at all scores 0 with a
    warning (MMDetection logs an error and returns nothing, and then no best checkpoint is saved). Other metrics, and
    ``format_only``, are MMDetection's.

    ``details`` holds what stands behind the last evaluation's numbers, on the process that computed them.

    Args:
        backend: 'faster-coco-eval' or 'pycocotools'; 'auto' takes the first if it is installed.
        score_thr: lowest score of a detection in the confusion matrix and the images of ``details``.
        **kwargs: as in MMDetection.

    Raises:
        ValueError: on another backend.
    """

    def __init__(self, *args, backend: str = 'auto', score_thr: float = 0.3, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if backend not in BACKENDS:
            raise ValueError(f'backend={backend!r}: must be one of {BACKENDS}')
        self.backend = backend
        self.score_thr = score_thr
        self.details: Optional[Details] = None

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Collect, as MMDetection does, and remember where the images lie."""
        super().process(data_batch, data_samples)
        for (_, prediction), sample in zip(self.results[-len(data_samples) :], data_samples):
            prediction['img_path'] = sample.get('img_path')

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The numbers above from what ``process`` collected."""
        if self.metrics != ['bbox'] or self.format_only or self._coco_api is None:
            return super().compute_metrics(results)
        classes = self.dataset_meta['classes']
        self.cat_ids = self._coco_api.get_cat_ids(cat_names=classes)
        self.img_ids = self._coco_api.get_img_ids()
        predictions = [prediction for _, prediction in results]
        if self.outfile_prefix is not None:
            self.results2json(predictions, self.outfile_prefix)
        detections = [row for prediction in predictions for row in self._coco_rows(prediction)]
        if not detections:
            MMLogger.get_current_instance().warning('No detection passed test_cfg.score_thr: every AP is 0.')
        numbers = evaluate_boxes(self._coco_api, detections, self.cat_ids, self.img_ids, self.backend)
        self.details = build_details(self._coco_api, predictions, classes, self.cat_ids, numbers, self.score_thr)
        metrics = {f'bbox_{name}': float(value) for name, value in zip(STATS, numbers.stats)}
        metrics.update({f'{name}{CLASS_SUFFIX}': ap for name, ap in zip(classes, numbers.class_ap())})
        return metrics

    def _coco_rows(self, prediction: dict) -> list[dict]:
        return [
            dict(
                image_id=prediction['img_id'],
                category_id=self.cat_ids[label],
                bbox=[float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                score=float(score),
            )
            for (x1, y1, x2, y2), score, label in zip(
                np.float64(prediction['bboxes']), prediction['scores'], prediction['labels']
            )
        ]
