"""COCO evaluation of boxes and masks: the twelve numbers and AP per class, unrounded."""

import contextlib
import io
import tempfile
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmengine.logging import MMLogger

from mixdet.errors import UserError, check_fraction
from mixdet.evaluation.coco import BACKENDS, MAX_DETS, CocoEvaluation, evaluate_coco, renumber
from mixdet.evaluation.details import Details, build_details
from mixdet.evaluation.numbers import IOU_TYPES, CocoNumbers, IouTypeNumbers, stat_names
from mixdet.evaluation.truth import category_ids, number_images, seen_images
from mixdet.registry import METRICS

PROPOSALS = (100, 300, 1000)  # MMDetection's proposal_nums, and the names it gives them whatever they are
PROPOSAL_ITEMS = ('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000')


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """MMDetection's ``CocoMetric`` with all of pycocotools' numbers.

    The metrics ``bbox`` and ``segm`` give the twelve COCO numbers as ``bbox_mAP`` ... ``bbox_AR_l@100`` and
    ``segm_mAP`` ..., and AP per class as ``<class>_precision`` for boxes and ``segm_<class>_precision`` for masks, all
    unrounded; -1 where there is no such ground truth. Those images are evaluated that were predicted, whatever else
    ``ann_file`` holds, and ids may be of any kind. No detection at all scores 0 with a warning (MMDetection logs an
    error and returns nothing, so that no best checkpoint is saved). ``proposal``, ``proposal_fast`` and ``format_only``
    give what they give in MMDetection.

    ``details`` holds what stands behind the last evaluation of boxes, on the process that computed it; its IoU
    thresholds and limits are COCO's own.

    Args:
        ann_file: ground truth; without it that of the data set, whose pipeline must pass on ``instances``.
        metric: one or more of 'bbox', 'segm', 'proposal' and 'proposal_fast'.
        classwise: give AP per class.
        proposal_nums: limits on the detections per image, COCO's 1, 10 and 100 by default, and for the proposal metrics
            100, 300 and 1000. AR is given for each as ``AR@<limit>``, all else for the largest.
        iou_thrs: IoU threshold or thresholds, COCO's .50:.95 by default; ``mAP`` is the mean over them.
        metric_items: the numbers to give, such as ``['mAP', 'AR@100']``; all by default.
        format_only: only write the detections to ``<outfile_prefix>.bbox.json`` and ``.segm.json``.
        outfile_prefix: where to write the detections; nowhere by default.
        backend: 'faster-coco-eval' or 'pycocotools'; 'auto' takes the first if it is installed.
        score_thr: lowest score of a detection in the confusion matrix and the images of ``details``.
        **kwargs: as in MMDetection. ``use_mp_eval`` makes the proposal metrics faster and changes no number.

    Raises:
        ValueError: for another backend, or a limit, threshold, number or score that cannot be.
        UserError: for ``segm`` if the annotation file has an object without a mask.
    """

    _coco_api: Optional[COCO]
    metrics: list[str]
    metric_items: Optional[Sequence[str]]
    outfile_prefix: Optional[str]

    def __init__(
        self,
        ann_file: Optional[str] = None,
        metric: Union[str, Sequence[str]] = 'bbox',
        classwise: bool = True,
        proposal_nums: Optional[Sequence[int]] = None,
        iou_thrs: Union[float, Sequence[float], None] = None,
        metric_items: Optional[Sequence[str]] = None,
        format_only: bool = False,
        outfile_prefix: Optional[str] = None,
        *,
        backend: str = 'auto',
        score_thr: float = 0.3,
        **kwargs: Any,
    ) -> None:
        if format_only and outfile_prefix is None:
            raise ValueError('format_only=True needs an outfile_prefix, such as work_dirs/results')
        if backend not in BACKENDS:
            raise ValueError(f'backend={backend!r}: must be one of {BACKENDS}')
        check_fraction('score_thr', score_thr)
        self.max_dets = check_limits(proposal_nums, MAX_DETS)
        thresholds = check_thresholds(iou_thrs)
        super().__init__(
            ann_file,
            [metric] if isinstance(metric, str) else list(metric),
            classwise,
            check_limits(proposal_nums, PROPOSALS),
            thresholds,
            metric_items,
            format_only,
            outfile_prefix,
            **kwargs,
        )
        self.box_metrics = [name for name in self.metrics if name in IOU_TYPES]
        self.proposal_metrics = [name for name in self.metrics if name not in IOU_TYPES]
        if 'proposal' in self.metrics and len(self.proposal_nums) != len(PROPOSALS):
            raise ValueError(f"proposal_nums={proposal_nums!r}: the metric 'proposal' takes three")
        self._check_items()
        self.ann_file = ann_file or ''
        if 'segm' in self.metrics and self._coco_api is not None:
            _check_masks(self._coco_api, self.ann_file)
        self.is_standard = self.max_dets == MAX_DETS and thresholds is None
        if thresholds is not None and self.box_metrics:
            MMLogger.get_current_instance().warning(f'iou_thrs: mAP is the mean over IoU {thresholds}, not .50:.95.')
        self.backend = backend
        self.score_thr = score_thr
        self.details: Optional[Details] = None

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Collect as MMDetection does, and remember where the images lie.

        Raises UserError if there is neither an ``ann_file`` nor ground truth in the samples.
        """
        if self._coco_api is None and any('instances' not in sample for sample in data_samples):
            if not self.format_only:
                raise UserError(
                    "the evaluator has no ann_file, and the data set passes on no ground truth: set the evaluator's "
                    "ann_file, or 'instances' among meta_keys of PackDetInputs"
                )
            data_samples = [{**sample, 'instances': []} for sample in data_samples]
        super().process(data_batch, data_samples)
        for (_, prediction), sample in zip(self.results[-len(data_samples) :], data_samples):
            prediction['img_path'] = sample.get('img_path')

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The numbers above from what ``process`` collected.

        Raises UserError for ``segm`` without predicted masks, and if the ground truth is not that of the images.
        """
        classes, truth = self.dataset_meta['classes'], self._coco_api
        self.cat_ids = list(range(len(classes))) if truth is None else category_ids(truth, classes, self.ann_file)
        if truth is not None and not self.format_only:
            results = seen_images(results, truth, self.ann_file)
        if self.outfile_prefix is not None and results:
            self.results2json([prediction for _, prediction in results], self.outfile_prefix)
        if self.format_only:
            return {}
        if truth is None:
            results = number_images(results)
            truth = self._convert_truth([entry for entry, _ in results])
        predictions = [prediction for _, prediction in results]
        self.img_ids = [prediction['img_id'] for prediction in predictions]
        metrics = self._compute_boxes(truth, predictions, classes) if self.box_metrics else {}
        return {**metrics, **self._compute_proposals(truth, results)} if self.proposal_metrics else metrics

    def _compute_boxes(self, truth: COCO, predictions: list[dict], classes: Sequence[str]) -> dict[str, float]:
        if not any(len(prediction['labels']) for prediction in predictions):
            MMLogger.get_current_instance().warning('No detection passed test_cfg.score_thr: every AP is 0.')
        evaluations = {name: self._evaluate(truth, predictions, name) for name in IOU_TYPES if name in self.box_metrics}
        standard = evaluations
        if 'bbox' in evaluations:
            if not self.is_standard:
                standard = {name: self._evaluate(truth, predictions, name, standard=True) for name in evaluations}
            found = standard['bbox'], standard.get('segm')
            self.details = build_details(truth, predictions, classes, self.cat_ids, self.score_thr, *found)
        bbox, segm = (self._numbers(evaluations.get(name), classes) for name in IOU_TYPES)
        return CocoNumbers(bbox, segm).to_metrics()

    def _compute_proposals(self, truth: COCO, results: list) -> dict[str, float]:
        """MMDetection's own, on ids that pycocotools takes."""
        plain, images, categories = renumber(truth, self.cat_ids, self.img_ids)
        numbered = [(entry, {**prediction, 'img_id': images[prediction['img_id']]}) for entry, prediction in results]
        kept = {name: getattr(self, name) for name in ('_coco_api', 'cat_ids', 'img_ids', 'metrics', 'outfile_prefix')}
        items = self.metric_items
        self._coco_api = COCO()
        self._coco_api.dataset = plain.dataset
        self._coco_api.createIndex()
        self.cat_ids, self.img_ids = list(categories.values()), list(images.values())
        self.metrics, self.outfile_prefix = self.proposal_metrics, None
        self.metric_items = [name for name in items if name in PROPOSAL_ITEMS] if items is not None else None
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
                return super().compute_metrics(numbered)
        finally:
            self.metric_items = items
            for name, value in kept.items():
                setattr(self, name, value)

    def fast_eval_recall(
        self, results: list[dict], proposal_nums: Sequence[int], iou_thrs: Sequence[float], logger: Any = None
    ) -> np.ndarray:
        """MMDetection's, image by image: all at once it fails from NumPy 1.24 on unless all have as many boxes."""
        assert self._coco_api is not None  # the only caller has set it
        img_ids, recall, total = self.img_ids, np.zeros(len(proposal_nums)), 0
        for image_id, result in zip(img_ids, results):
            boxes = sum(not (entry.get('ignore') or entry['iscrowd']) for entry in self._coco_api.imgToAnns[image_id])
            if boxes:
                self.img_ids = [image_id]
                recall += boxes * super().fast_eval_recall([result], proposal_nums, iou_thrs, logger='silent')
                total += boxes
        self.img_ids = img_ids
        return recall / total if total else np.full(len(proposal_nums), -1.0)

    def _convert_truth(self, truth: list[dict]) -> COCO:
        """Ground truth from what the data set gave, where there is no annotation file."""
        with tempfile.TemporaryDirectory() as folder:
            return COCO(self.gt_to_coco_json(truth, str(Path(folder, 'truth'))))

    def _evaluate(self, truth: COCO, predictions: list[dict], iou_type: str, standard: bool = False) -> CocoEvaluation:
        rows = [row for prediction in predictions for row in self._rows(prediction, iou_type)]
        limits, thresholds = (MAX_DETS, None) if standard or self.is_standard else (self.max_dets, self.iou_thrs)
        ids = self.cat_ids, self.img_ids
        return evaluate_coco(truth, rows, *ids, self.backend, iou_type, limits, thresholds)

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

    def _numbers(self, evaluation: Optional[CocoEvaluation], classes: Sequence[str]) -> IouTypeNumbers:
        if evaluation is None:
            return IouTypeNumbers()
        stats = dict(zip(stat_names(self.max_dets), map(float, evaluation.stats)))
        if self.metric_items is not None:
            stats = {name: stats[name] for name in self.metric_items if name in stats}
        return IouTypeNumbers(stats, dict(zip(classes, evaluation.class_ap())) if self.classwise else {})

    def _check_items(self) -> None:
        known = [*(stat_names(self.max_dets) if self.box_metrics else ())]
        known += [name for name in PROPOSAL_ITEMS if self.proposal_metrics and name not in known]
        for name in self.metric_items or ():
            if name not in known:
                raise ValueError(
                    f'metric_items: there is no {name!r} among {", ".join(known)}; proposal_nums sets the limits of AR'
                )


def check_limits(limits: Optional[Sequence[int]], default: tuple[int, ...]) -> tuple[int, ...]:
    """``proposal_nums`` in ascending order. Raises ValueError unless they are whole numbers above 0."""
    if limits is None:
        return default
    numbers = tuple(limits) if isinstance(limits, Sequence) and not isinstance(limits, str) else ()
    if not numbers or not all(isinstance(number, int) and number > 0 for number in numbers):
        raise ValueError(f'proposal_nums={limits!r}: must be whole numbers above 0, such as (1, 10, 100)')
    return tuple(sorted(set(numbers)))


def check_thresholds(thresholds: Union[float, Sequence[float], None]) -> Optional[list[float]]:
    """``iou_thrs`` in ascending order. Raises ValueError unless they are above 0 and at most 1."""
    if thresholds is None:
        return None
    values: list[Any] = [thresholds] if isinstance(thresholds, Real) else list(np.asarray(thresholds, object).ravel())
    if not values or not all(isinstance(value, Real) and 0 < float(value) <= 1 for value in values):
        raise ValueError(f'iou_thrs={thresholds!r}: must be above 0 and at most 1')
    return sorted({float(value) for value in values})


def _check_masks(truth: COCO, ann_file: str) -> None:
    annotations = truth.dataset.get('annotations', ())
    missing = sum(not annotation.get('segmentation') for annotation in annotations)
    if missing:
        raise UserError(
            f'{ann_file}: {missing} of {len(annotations)} objects have no segmentation, which the metric '
            "'segm' needs; add them, or evaluate 'bbox' alone"
        )
