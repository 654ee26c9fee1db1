"""Exported files against the detector they come from: their detections, and their AP on a data set."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mixdet.engine.class_names import check_evaluated, named_classes
from mixdet.errors import UserError
from mixdet.evaluation.numbers import CocoNumbers

Detections = tuple[np.ndarray, np.ndarray, np.ndarray]  # of an image: boxes (n, 4), scores (n), labels (n)
MARGIN = 1e-3  # a score so close to the threshold may be below it on the other side
ROUNDING_BOXES, ROUNDING_SCORES, ROUNDING_SHARE = 0.5, 0.01, 0.01  # px, and see DetectionDifference.is_rounding
LARGE_SHARE = 0.1  # of detections without a counterpart: more than 8 bits should cost
LARGE_AP_LOSS = 0.01
MAX_DISTANCE = 5  # px between the corresponding sides of a box and its counterpart


class DetectionDifference(NamedTuple):
    """How far exported detections are from the original ones.

    Attributes:
        boxes: largest distance between the sides of a box and of its counterpart, px.
        scores: largest difference of their scores.
        unmatched: detections of either side without a counterpart on the other.
        detections: detections of the original that were compared.
    """

    boxes: float
    scores: float
    unmatched: int
    detections: int

    @property
    def share(self) -> float:
        """The detections without a counterpart as a share of the original ones; 0 if there are none on either side."""
        return self.unmatched / max(self.detections, 1)

    @property
    def is_rounding(self) -> bool:
        """Whether it is so small as rounding in half precision makes it: 0.5 px, scores 0.01, one box in a hundred."""
        return self.boxes <= ROUNDING_BOXES and self.scores <= ROUNDING_SCORES and self.share <= ROUNDING_SHARE


class Comparison(NamedTuple):
    """The COCO ``numbers`` of a detector, and the ``difference`` of its detections from those of the first detector."""

    numbers: CocoNumbers
    difference: DetectionDifference


def detection_arrays(sample: DetDataSample) -> Detections:
    """The detections in ``sample`` as arrays."""
    found = sample.pred_instances.cpu()
    return found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy()


def compare_detections(
    originals: Sequence[Detections], exported: Sequence[Detections], score_thr: float = 0.05
) -> DetectionDifference:
    """Compare the detections in images, given in the same order.

    The counterpart of a detection is the one of its class with the nearest box, at most 5 px away. Counterparts are
    looked for from a score of ``score_thr`` + 0.001 on, as those of lower ones may lie below the threshold.
    """
    box_difference = score_difference = 0.0
    unmatched = total = 0
    for pair in zip(originals, exported):
        for side in (0, 1):
            boxes, scores, labels = pair[1 - side]
            for box, score, label in zip(*pair[side]):
                if score < score_thr + MARGIN:
                    continue
                total += side == 0
                distances = np.abs(boxes - box).max(1)
                distances = np.where(labels == label, distances, np.inf)
                if distances.min(initial=np.inf) > MAX_DISTANCE:
                    unmatched += 1
                    continue
                nearest = distances.argmin()
                box_difference = max(box_difference, float(distances[nearest]))
                score_difference = max(score_difference, abs(float(score - scores[nearest])))
    return DetectionDifference(box_difference, score_difference, unmatched, total)


def evaluate_together(runner: Runner, detectors: Mapping[str, BaseModel]) -> dict[str, Comparison]:
    """Evaluate ``detectors`` on the test set of ``runner``, batch by batch, and compare each with the first.

    Raises UserError if the config's evaluator does not report COCO's box metrics, or a detector that knows its classes
    has them in another order than the test set.
    """
    loader = runner.test_dataloader
    evaluators = {name: runner.build_evaluator(runner.cfg.test_evaluator) for name in detectors}
    found: dict[str, list[Detections]] = {name: [] for name in detectors}
    classes = named_classes(loader.dataset.metainfo)
    for name, detector in detectors.items():
        evaluators[name].dataset_meta = loader.dataset.metainfo
        check_evaluated(named_classes(getattr(detector, 'dataset_meta', None)), classes, name, 'test_dataloader')
    for batch in loader:
        for name, detector in detectors.items():
            samples = detector.test_step(batch)
            evaluators[name].process(data_samples=samples, data_batch=batch)
            found[name] += [detection_arrays(sample) for sample in samples]
    original = next(iter(found.values()))
    results = {}
    for name, evaluator in evaluators.items():
        numbers = CocoNumbers.from_metrics(evaluator.evaluate(len(loader.dataset)))
        if 'mAP' not in numbers.bbox.stats:
            raise UserError("test_evaluator: must be a CocoMetric with metric='bbox'")
        results[name] = Comparison(numbers, compare_detections(original, found[name]))
    return results
