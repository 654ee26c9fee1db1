"""COCO evaluation of boxes: the twelve numbers and AP per class, unrounded."""

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmengine.logging import MMLogger
from pycocotools.cocoeval import COCOeval

from mixdet.registry import METRICS

# pycocotools' COCOeval.stats in order, under MMDetection's names
STATS = (
    'mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l',
    'AR@1', 'AR@10', 'AR@100', 'AR_s@100', 'AR_m@100', 'AR_l@100',
)  # fmt: skip
CLASS_SUFFIX = '_precision'  # after the class's name, as MMDetection's ``classwise`` has it


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """MMDetection's ``CocoMetric`` with pycocotools' own limits (1, 10, 100 detections) and all of its numbers.

    ``bbox`` gives the twelve COCO numbers as ``bbox_mAP`` ... ``bbox_AR_l@100`` and AP per class as
    ``<class>_precision``, unrounded; -1 where there is no such ground truth. No detection at all scores 0 with a
    warning (MMDetection logs an error and returns nothing, and then no best checkpoint is saved). Other metrics, and
    ``format_only``, are MMDetection's.
    """

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
        stats, class_ap = self._evaluate(detections)
        metrics = {f'bbox_{name}': float(value) for name, value in zip(STATS, stats)}
        metrics.update({f'{name}{CLASS_SUFFIX}': float(ap) for name, ap in zip(classes, class_ap)})
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

    def _evaluate(self, detections: list[dict]) -> tuple[Sequence[float], list[float]]:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            found = self._coco_api.loadRes(detections) if detections else type(self._coco_api)()
            coco_eval = COCOeval(self._coco_api, found, 'bbox')
            coco_eval.params.catIds = self.cat_ids
            coco_eval.params.imgIds = self.img_ids
            coco_eval.evaluate()
            coco_eval.accumulate()
            coco_eval.summarize()
        # (IoU, recall, class, area, detections): all areas, 100 detections
        precision = coco_eval.eval['precision'][:, :, :, 0, -1]
        per_class = [values[values > -1] for values in np.moveaxis(precision, 2, 0)]
        return coco_eval.stats, [values.mean() if values.size else -1.0 for values in per_class]
