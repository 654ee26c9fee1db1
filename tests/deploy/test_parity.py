import numpy as np
import pytest

from mixdet.deploy.parity import compare


def test_comparison_finds_differences():
    boxes = np.float32([[0, 0, 10, 10], [50, 50, 60, 60]])
    scores, labels = np.float32([0.9, 0.8]), np.array([0, 1])
    original = [(boxes, scores, labels)]
    assert compare(original, original) == (0.0, 0.0, 0, 2)
    moved = compare(original, [(boxes + 0.5, scores - 0.1, labels)])
    assert moved.boxes == 0.5 and moved.scores == pytest.approx(0.1) and moved.unmatched == 0
    # each of the two on either side
    assert compare(original, [(boxes, scores, 1 - labels)]).unmatched == 4
    assert compare(original, [(boxes + 90, scores, labels)]).unmatched == 4


def test_what_one_side_alone_has_is_found():
    boxes = np.float32([[0, 0, 10, 10], [50, 50, 60, 60]])
    scores, labels = np.float32([0.9, 0.0505]), np.array([0, 0])
    both, first, none = ([(boxes[:n], scores[:n], labels[:n])] for n in (2, 1, 0))
    assert compare(both, none) == (0.0, 0.0, 1, 1) and compare(none, both) == (0.0, 0.0, 1, 0)
    assert compare(both, first).unmatched == 0  # so near to the threshold
    assert compare(both, first, score_thr=0.01) == (0.0, 0.0, 1, 2)
