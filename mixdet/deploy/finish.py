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
    flat = scores.ravel()
    count = min(thresholds.candidates, int((flat > thresholds.score_thr).sum()))
    chosen = np.argpartition(-flat, count)[:count] if count < len(flat) else np.arange(count)
    chosen = chosen[np.lexsort((chosen, -flat[chosen]))]
    anchors, labels = np.divmod(chosen, scores.shape[1])
    boxes, values = boxes[anchors], flat[chosen]
    best = _suppress(boxes, labels, thresholds)
    height, width = size
    clipped = boxes[best].clip(0, np.array([width, height, width, height], boxes.dtype))
    filled = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    return clipped[filled], values[best][filled], labels[best][filled]


def _suppress(boxes: np.ndarray, labels: np.ndarray, thresholds: Thresholds) -> list[int]:
    """Greedy NMS of the boxes (n, 4), sorted from the best: the indices of those that it keeps, no more than needed."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    of_class = {label: np.flatnonzero(labels == label) for label in np.unique(labels)}
    alive = np.ones(len(boxes), bool)
    kept: list[int] = []
    for index, label in enumerate(labels):
        if len(kept) == thresholds.max_per_img:
            break
        if not alive[index]:
            continue
        kept.append(index)
        others = of_class[label]
        sides = np.minimum(boxes[others, 2:], boxes[index, 2:]) - np.maximum(boxes[others, :2], boxes[index, :2])
        overlap = sides.clip(0).prod(1)
        with np.errstate(invalid='ignore', divide='ignore'):  # of two empty boxes, whose NaN drops nothing
            iou = overlap / (areas[others] + areas[index] - overlap)
        alive[others[iou > thresholds.iou_threshold]] = False  # those before it are decided already
    return kept
