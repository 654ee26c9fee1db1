"""Exported files against the detector they come from: their detections, and their AP on a data set."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from mmengine.runner import Runner
from torch import nn

from mixdet.errors import UserError
from mixdet.evaluation.numbers import CocoNumbers

Detections = tuple[np.ndarray, np.ndarray, np.ndarray]  # of an image: boxes (n, 4), scores (n), labels (n)
MARGIN = 1e-3  # so near to the threshold a detection may be on one side only


class Difference(NamedTuple):
    """How far exported detections are from the original's: px, score, and the number of those, on either side, that
    have no counterpart on the other."""

    boxes: float
    scores: float
    unmatched: int
    detections: int


class Comparison(NamedTuple):
    """The COCO ``numbers`` of a detector, and how far it is from the first."""

    numbers: CocoNumbers
    difference: Difference


def arrays(sample) -> Detections:
    """The detections of MMDetection's ``DetDataSample``."""
    found = sample.pred_instances.cpu()
    return found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy()


def compare(originals: Sequence[Detections], exported: Sequence[Detections], score_thr: float = 0.05) -> Difference:
    """Compare detections, images in the same order.

    A detection's counterpart has its class and the nearest box, within 5 px. Those of at least ``score_thr`` are
    compared; nearer to it than 1e-3 they may miss theirs.
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
                distances = np.abs(boxes - box).max(1, initial=0)
                distances = np.where(labels == label, distances, np.inf)
                if distances.min(initial=np.inf) > 5:
                    unmatched += 1
                    continue
                nearest = distances.argmin()
                box_difference = max(box_difference, float(distances[nearest]))
                score_difference = max(score_difference, abs(float(score - scores[nearest])))
    return Difference(box_difference, score_difference, unmatched, total)


def evaluate_together(runner: Runner, detectors: Mapping[str, nn.Module]) -> dict[str, Comparison]:
    """Evaluate ``detectors`` on the test set of ``runner``, batch by batch, and compare each with the first.

    Raises UserError if the config's evaluator does not give COCO's numbers.
    """
    loader = runner.test_dataloader
    evaluators = {name: runner.build_evaluator(runner.cfg.test_evaluator) for name in detectors}
    found: dict[str, list[Detections]] = {name: [] for name in detectors}
    for evaluator in evaluators.values():
        evaluator.dataset_meta = loader.dataset.metainfo
    for batch in loader:
        for name, detector in detectors.items():
            samples = detector.test_step(batch)
            evaluators[name].process(data_samples=samples, data_batch=batch)
            found[name] += [arrays(sample) for sample in samples]
    original = next(iter(found.values()))
    results = {}
    for name, evaluator in evaluators.items():
        numbers = CocoNumbers.from_metrics(evaluator.evaluate(len(loader.dataset)))
        if 'mAP' not in numbers.bbox.stats:
            raise UserError("test_evaluator: must be a CocoMetric with metric='bbox'")
        results[name] = Comparison(numbers, compare(original, found[name]))
    return results
