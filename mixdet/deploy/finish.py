"""From the boxes and scores of all anchors to detections, for exported files without NMS inside."""

import numpy as np

from mixdet.deploy.formats.base import Outputs, Thresholds


def finish(boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int], thresholds: Thresholds) -> Outputs:
    """The detections in one image, as ``SSDLiteHead.predict_by_feat`` makes them.

    Of the class scores above the score threshold the best ``candidates`` are kept. Of each class, best first, those
    that overlap one already kept by more than the IoU threshold are dropped. The best ``max_per_img`` of what remains
    are clipped to the image, and the empty ones among them dropped.

    Args:
        boxes: of all anchors, (A, 4) as x1, y1, x2, y2 in px, not clipped.
        scores: of all anchors, (A, classes).
        size: height and width of the image, px.
        thresholds: those of the file's metadata.

    Returns:
        ``boxes`` (n, 4), ``scores`` (n) and ``labels`` (n), best first.
    """
    anchors, labels = np.nonzero(scores > thresholds.score_thr)
    values = scores[anchors, labels]
    order = np.argsort(-values, kind='stable')[: thresholds.candidates]
    boxes, values, labels = boxes[anchors[order]], values[order], labels[order]
    kept = np.zeros(len(values), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        kept[members[_suppress(boxes[members], thresholds.iou_threshold)]] = True
    best = np.flatnonzero(kept)[: thresholds.max_per_img]
    height, width = size
    clipped = boxes[best].clip(0, np.array([width, height, width, height], boxes.dtype))
    filled = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    return clipped[filled], values[best][filled], labels[best][filled]


def _suppress(boxes: np.ndarray, iou_threshold: float) -> list[int]:
    """Greedy NMS: the indices of the boxes (n, 4), sorted from the best, that it keeps."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left, kept = np.arange(len(boxes)), []
    while len(left):
        first, left = left[0], left[1:]
        kept.append(int(first))
        sides = np.minimum(boxes[left, 2:], boxes[first, 2:]) - np.maximum(boxes[left, :2], boxes[first, :2])
        overlap = sides.clip(0).prod(1)
        with np.errstate(invalid='ignore', divide='ignore'):  # of two empty boxes, whose NaN drops nothing
            iou = overlap / (areas[left] + areas[first] - overlap)
        left = left[~(iou > iou_threshold)]
    return kept
