import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms

from mixdet.deploy.exportable import ExportableSSDLite
from mixdet.deploy.finish import finish
from mixdet.deploy.formats.base import Thresholds
from mixdet.deploy.inference import Detector
from mixdet.deploy.parity import compare_detections, detection_arrays

THRESHOLDS = Thresholds(0.1, 0.5, 10, 1000)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(1, 3),
    score_thr=st.sampled_from([0.0, 0.3, 0.6]),
    iou=st.sampled_from([0.1, 0.5, 1.0]),
    most=st.integers(1, 20),
)
def test_nms_is_that_of_mmcv(seed, classes, score_thr, iou, most):
    generator = np.random.default_rng(seed)
    corners = generator.uniform(-8, 40, (30, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + generator.uniform(1, 20, (30, 2)).astype(np.float32)], 1)
    scores = generator.uniform(0, 1, (30, classes)).astype(np.float32)
    found = finish(boxes, scores, (1000, 1000), Thresholds(score_thr, iou, most, 90))
    anchors, labels = np.nonzero(scores > score_thr)
    each = torch.from_numpy(boxes[anchors]), torch.from_numpy(scores[anchors, labels]), torch.from_numpy(labels)
    shifted = each[0] - each[0].min() if len(anchors) else each[0]
    dets, keep = batched_nms(shifted, *each[1:], dict(type='nms', iou_threshold=iou))
    wanted = each[0][keep[:most]].clamp(min=0)
    filled = (wanted[:, 2:] > wanted[:, :2]).all(1)
    np.testing.assert_array_equal(found[0], wanted[filled])
    np.testing.assert_array_equal(found[1], dets[:most, 4][filled])
    np.testing.assert_array_equal(found[2], each[2][keep[:most]][filled])


def test_clipping_comes_after_nms():
    """Two boxes that reach beyond the image overlap less as a whole than their parts inside."""
    boxes = np.float32([[-20, 0, 10, 10], [0, 0, 30, 10], [40, 0, 60, 10]])
    scores = np.float32([[0.9], [0.8], [0.7]])
    found = finish(boxes, scores, (20, 12), THRESHOLDS)
    assert found[0].tolist() == [[0, 0, 10, 10], [0, 0, 12, 10]]  # the third is outside
    assert found[1].tolist() == pytest.approx([0.9, 0.8]) and found[2].tolist() == [0, 0]


def test_only_the_best_candidates_enter_nms():
    boxes = np.float32([[0, 0, 10, 10], [20, 0, 30, 10]])
    scores = np.float32([[0.9, 0.2], [0.8, 0.3]])
    found = finish(boxes, scores, (40, 40), THRESHOLDS._replace(candidates=3))
    assert (found[2].tolist(), found[1].tolist()) == ([0, 0, 1], pytest.approx([0.9, 0.8, 0.3]))
    assert len(finish(boxes, scores, (40, 40), THRESHOLDS._replace(max_per_img=1))[1]) == 1


def test_no_detection():
    boxes, scores, labels = finish(np.zeros((5, 4), np.float32), np.zeros((5, 3), np.float32), (8, 8), THRESHOLDS)
    assert boxes.shape == (0, 4) and scores.shape == labels.shape == (0,)
    scores = np.full((5, 3), np.nan, np.float32)
    assert len(finish(np.zeros((5, 4), np.float32), scores, (8, 8), THRESHOLDS)[1]) == 0


def test_detections_are_the_detectors(tiny, demo_images):
    detector = Detector(*tiny, fuse=False)
    network = ExportableSSDLite(detector.model, (160, 160), None).eval()
    thresholds = Thresholds(network.score_thr, network.iou_threshold, network.max_per_img, network.candidates)
    with torch.no_grad():
        boxes, scores = (output.numpy() for output in network(detector.preprocess(demo_images)))
    found = [finish(*each, (160, 160), thresholds) for each in zip(boxes, scores)]
    samples = detector.predict_samples(demo_images)
    scales = [np.tile(np.float32(sample.scale_factor), 2) for sample in samples]
    wanted = [
        (boxes * scale, scores, labels)
        for (boxes, scores, labels), scale in zip(map(detection_arrays, samples), scales)
    ]
    difference = compare_detections(wanted, found, score_thr=0.0)
    assert difference.detections == 30 and difference.unmatched == 0
    assert difference.boxes < 1e-3 and difference.scores < 1e-6
