from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mixdet.deploy.parity import DetectionDifference, compare_detections, detection_arrays, evaluate_together
from mixdet.errors import UserError

BOXES = np.float32([[0, 0, 10, 10], [50, 50, 60, 60]])


def test_comparison_finds_differences():
    scores, labels = np.float32([0.9, 0.8]), np.array([0, 1])
    original = [(BOXES, scores, labels)]
    assert compare_detections(original, original) == (0.0, 0.0, 0, 2)
    moved = compare_detections(original, [(BOXES + 0.5, scores - 0.1, labels)])
    assert moved.boxes == 0.5 and moved.scores == pytest.approx(0.1) and moved.unmatched == 0
    # each of the two on either side
    assert compare_detections(original, [(BOXES, scores, 1 - labels)]).unmatched == 4
    assert compare_detections(original, [(BOXES + 5, scores, labels)]).boxes == 5
    assert compare_detections(original, [(BOXES + 5.01, scores, labels)]).unmatched == 4
    assert compare_detections(original, [(BOXES - 5.01, scores, labels)]).unmatched == 4


def test_one_side_of_a_box_decides():
    moved = BOXES.copy()
    moved[1, 2] -= 2
    scores, labels = np.float32([0.9, 0.8]), np.array([0, 1])
    assert compare_detections([(BOXES, scores, labels)], [(moved, scores, labels)]) == (2.0, 0.0, 0, 2)


def test_the_nearest_box_of_the_class_is_the_counterpart():
    """And the largest of the differences counts, whatever comes after it."""
    original = [(BOXES[:1], np.float32([0.9]), np.array([0]))]
    near = np.concatenate([BOXES[:1] + 3, BOXES[:1] - 1, BOXES[:1]])
    exported = [(near, np.float32([0.5, 0.7, 0.9]), np.array([0, 0, 1]))]
    difference = compare_detections(original, exported)
    assert difference.boxes == 3 and difference.scores == pytest.approx(0.4)
    assert (difference.unmatched, difference.detections) == (1, 1)  # the one of the other class
    two = compare_detections(original * 2, [exported[0], original[0]])
    assert two.boxes == 3 and two.scores == pytest.approx(0.4) and two.detections == 2


def test_detections_of_one_side_alone_are_found():
    scores, labels = np.float32([0.9, 0.0505]), np.array([0, 0])
    both, first, none = ([(BOXES[:n], scores[:n], labels[:n])] for n in (2, 1, 0))
    assert compare_detections(both, none) == (0.0, 0.0, 1, 1)
    assert compare_detections(none, both) == (0.0, 0.0, 1, 0)
    assert compare_detections(both, first).unmatched == 0  # so near to the threshold
    assert compare_detections(both, first, score_thr=0.01) == (0.0, 0.0, 1, 2)


def sample(score):
    found = DetDataSample()
    found.pred_instances = InstanceData(
        bboxes=torch.from_numpy(BOXES), scores=torch.tensor([score, 0.5]), labels=torch.tensor([0, 1])
    )
    return found


class Evaluator:
    """Gives the mean of the first scores for AP, under the name ``metric``."""

    def __init__(self, metric):
        self.metric, self.scores = metric, []

    def process(self, data_samples, data_batch):
        self.scores += [float(one.pred_instances.scores[0]) for one in data_samples]
        assert len(data_batch) == len(data_samples)

    def evaluate(self, size):
        assert len(self.scores) == size and self.dataset_meta == dict(classes=('a', 'b'))
        return {self.metric: float(np.mean(self.scores)), 'coco/bbox_mAP_50': 1.0}


class Loader(list):
    dataset = type('Images', (list,), dict(metainfo=dict(classes=('a', 'b'))))(range(3))


def runner(metric):
    return SimpleNamespace(
        test_dataloader=Loader([[0, 1], [2]]),
        cfg=SimpleNamespace(test_evaluator=dict(type='CocoMetric')),
        build_evaluator=lambda cfg: Evaluator(metric),
    )


def test_detectors_are_evaluated_together():
    """Every detector sees every batch and has an evaluator of its own; the first is what others are compared with."""
    detectors = {
        name: SimpleNamespace(test_step=lambda batch, score=score: [sample(score) for _ in batch])
        for name, score in (('original', 0.75), ('exported', 0.5))
    }
    results = evaluate_together(runner('coco/bbox_mAP'), detectors)
    assert list(results) == ['original', 'exported']
    assert (
        results['original'].numbers.bbox.stats['mAP'] == 0.75 and results['exported'].numbers.bbox.stats['mAP'] == 0.5
    )
    assert results['original'].difference == (0.0, 0.0, 0, 6)
    assert results['exported'].difference == (0.0, 0.25, 0, 6)


def test_classes_in_another_order_are_refused():
    tested = runner('coco/bbox_mAP')
    tested.test_dataloader = SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=('cat', 'dog'))))
    exported = SimpleNamespace(dataset_meta=dict(classes=('dog', 'cat')))
    with pytest.raises(UserError, match=r"a.onnx: its classes are in another order than in test_dataloader: .* 'dog'"):
        evaluate_together(tested, {'a.onnx': exported})


def test_other_metrics_are_refused():
    detectors = dict(original=SimpleNamespace(test_step=lambda batch: [sample(0.5) for _ in batch]))
    with pytest.raises(UserError, match="must be a CocoMetric with metric='bbox'"):
        evaluate_together(runner('pascal_voc/mAP'), detectors)


def test_arrays_of_a_sample():
    boxes, scores, labels = detection_arrays(sample(0.25))
    assert np.array_equal(boxes, BOXES) and scores.tolist() == [0.25, 0.5] and labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ('difference', 'share', 'is_rounding'),
    [
        ((0.0, 0.0, 0, 0), 0, True),
        ((0.5, 0.01, 1, 100), 0.01, True),
        ((0.51, 0.0, 0, 100), 0, False),
        ((0.0, 0.011, 0, 100), 0, False),
        ((0.0, 0.0, 2, 100), 0.02, False),
        ((0.0, 0.0, 3, 0), 3, False),
    ],
)
def test_what_counts_as_rounding(difference, share, is_rounding):
    difference = DetectionDifference(*difference)
    assert difference.share == share and difference.is_rounding == is_rounding
