"""What stands behind a COCO evaluation: numbers of each class, PR curves, confusions, and each image's errors."""

from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np
from pycocotools.coco import COCO

from mixdet.evaluation.coco import AREAS, IOU_THRS, RECALLS, CocoEvaluation, known_mean

MATCH_IOU = 0.5
FOUND, CONFUSED, MISSED, FALSE_ALARM = 'found', 'confused', 'missed', 'false alarm'


class Box(NamedTuple):
    """Corners in px of the original image, the class's index, and the outcome: a ground truth box is ``FOUND``,
    ``CONFUSED`` (found as another class) or ``MISSED``; a detection is ``FOUND``, ``CONFUSED`` or ``FALSE_ALARM``, and
    has a ``score``.
    """

    corners: tuple[float, float, float, float]
    label: int
    state: str
    score: Optional[float] = None


class ImageErrors(NamedTuple):
    """An image with its ground truth and its detections of sufficient score, matched to each other."""

    path: str
    truth: list[Box]
    detections: list[Box]

    def count(self, state: str) -> int:
        """Boxes in a state; those found and confused stand on both sides and count once."""
        return sum(box.state == state for box in (self.detections if state == FALSE_ALARM else self.truth))

    @property
    def f1(self) -> float:
        """Boxes found among all boxes and detections; 1 for an empty image left empty."""
        total = len(self.truth) + len(self.detections)
        return 2 * self.count(FOUND) / total if total else 1.0

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the boxes found with their detections; 0 if there is none."""
        truth, found = ([box for box in boxes if box.state == FOUND] for boxes in (self.truth, self.detections))
        if not truth or not found:
            return 0.0
        corners = [np.array([box.corners for box in boxes], float) for boxes in (found, truth)]
        ious = box_ious(corners[0], corners[1])
        same = np.array([box.label for box in found])[:, None] == np.array([box.label for box in truth])
        return float((ious * same).max(axis=1).mean())

    @property
    def mistakes(self) -> int:
        """Boxes missed or confused, and false alarms."""
        return self.count(MISSED) + self.count(CONFUSED) + self.count(FALSE_ALARM)


class Details(NamedTuple):
    """``classes``: one dict of numbers per class, see ``class_numbers``. ``precision``: for each class, precision at
    IoU .50 over the 101 recalls. ``mean_precision``: the mean over classes by IoU threshold. ``confusion``: counts
    (classes + 1, classes + 1), rows ground truth, columns detections; the last of each stands for none. ``images``:
    all of them. ``score_thr``: the lowest score in ``confusion`` and ``images``.
    """

    classes: list[dict]
    precision: np.ndarray
    mean_precision: dict[str, np.ndarray]
    confusion: np.ndarray
    images: list[ImageErrors]
    score_thr: float

    @property
    def names(self) -> list[str]:
        """The classes."""
        return [numbers['name'] for numbers in self.classes]

    def worst_images(self, count: int) -> list[ImageErrors]:
        """Images with mistakes, lowest F1 first, and of equals those with most mistakes."""
        return sorted((i for i in self.images if i.mistakes), key=lambda image: (image.f1, -image.mistakes))[:count]

    def best_images(self, count: int) -> list[ImageErrors]:
        """Images where something was found, highest F1 first, of equals those whose boxes fit best."""
        found = (image for image in self.images if image.count(FOUND))
        return sorted(found, key=lambda image: (-image.f1, -image.mean_iou, -len(image.truth)))[:count]


def build_details(
    truth: COCO,
    predictions: Sequence[dict],
    classes: Sequence[str],
    cat_ids: Sequence[int],
    score_thr: float,
    bbox: CocoEvaluation,
    segm: Optional[CocoEvaluation] = None,
) -> Details:
    """Details of an evaluation.

    Args:
        truth: ground truth.
        predictions: for each image ``img_id``, ``img_path``, ``bboxes`` (n, 4) px, ``scores`` and ``labels``.
        classes: names.
        cat_ids: their ids in ``truth``.
        score_thr: detections below it are left out of ``confusion`` and ``images``.
        bbox: the boxes as ``evaluate_coco`` evaluated them.
        segm: the masks, if they were evaluated.
    """
    confusion = np.zeros((len(classes) + 1, len(classes) + 1), int)
    labels = {cat_id: label for label, cat_id in enumerate(cat_ids)}
    images = []
    boxes = [0] * len(classes)
    for prediction in predictions:
        annotations = [a for a in truth.imgToAnns.get(prediction['img_id'], []) if a['category_id'] in labels]
        for annotation in annotations:
            boxes[labels[annotation['category_id']]] += not annotation.get('iscrowd')
        images.append(_match_image(prediction, annotations, labels, score_thr, confusion))
    mean = {
        f'{thr:.2f}': np.array([known_mean(values) for values in bbox.precision[i, :, :, 0]])
        for i, thr in enumerate(IOU_THRS)
    }
    rows = class_numbers(bbox, classes, boxes)
    for row, ap in zip(rows, segm.class_ap() if segm else ()):
        row['mask_AP'] = ap
    return Details(rows, bbox.precision[0, :, :, 0].T, mean, confusion, images, score_thr)


def class_numbers(evaluation: CocoEvaluation, classes: Sequence[str], boxes: Sequence[int]) -> list[dict]:
    """For each class its name, ground truth ``boxes``, AP over all and at two IoU thresholds, AP by size, AR, and the
    best F1 on the PR curve at IoU .50 with the score threshold that gives it; -1 where there is no ground truth.
    """
    by_size = {f'AP_{size}': evaluation.class_ap(area=1 + i) for i, size in enumerate(AREAS[1:])}
    columns = dict(
        name=list(classes),
        boxes=list(boxes),
        AP=evaluation.class_ap(),
        AP50=evaluation.class_ap(slice(0, 1)),
        AP75=evaluation.class_ap(slice(5, 6)),
        **by_size,
        AR=[known_mean(values) for values in evaluation.recall[:, :, 0].T],
    )
    rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    for k, row in enumerate(rows):
        precision = evaluation.precision[0, :, k, 0]
        f1 = 2 * precision * RECALLS / np.maximum(precision + RECALLS, 1e-12)
        best = int(f1.argmax())
        row.update(F1=float(f1[best]) if row['AP50'] >= 0 else -1.0, score=float(evaluation.scores[0, best, k, 0]))
    return rows


def match_boxes(
    truth: np.ndarray, truth_labels: np.ndarray, found: np.ndarray, found_labels: np.ndarray, iou_thr: float = MATCH_IOU
) -> np.ndarray:
    """For each detection (n, 4), highest score first, the index of its ground truth box (m, 4), or -1.

    As in COCO's evaluation each takes the free box of its class that it overlaps most; those left over may then take
    a box of another class.
    """
    taken = np.full(len(found), -1)
    if not len(truth) or not len(found):
        return taken
    ious = box_ious(found, truth)
    free = np.ones(len(truth), bool)
    for same_class in (True, False):
        for i in np.flatnonzero(taken < 0):
            allowed = free & (truth_labels == found_labels[i]) if same_class else free
            candidates = np.where(allowed, ious[i], 0)
            best = int(candidates.argmax())
            if candidates[best] >= iou_thr:
                taken[i], free[best] = best, False
    return taken


def box_ious(a: np.ndarray, b: np.ndarray, crowd: bool = False) -> np.ndarray:
    """IoU (n, m) of boxes (n, 4) and (m, 4), corners in px; if the b are ``crowd`` regions, the part of a inside."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    intersection = sides.clip(0).prod(-1)
    areas = (a[:, 2:] - a[:, :2]).prod(-1)[:, None]
    total = areas if crowd else areas + (b[:, 2:] - b[:, :2]).prod(-1)[None] - intersection
    return intersection / np.maximum(total, 1e-12)


def _match_image(
    prediction: dict, annotations: list[dict], labels: dict[int, int], score_thr: float, confusion: np.ndarray
) -> ImageErrors:
    """Match an image's detections to its ground truth, and count them in ``confusion``."""
    crowd = [annotation for annotation in annotations if annotation.get('iscrowd')]
    boxes, truth_labels = _as_arrays([a for a in annotations if not a.get('iscrowd')], labels)
    kept = np.flatnonzero(prediction['scores'] >= score_thr)
    kept = kept[np.argsort(-prediction['scores'][kept], kind='stable')]
    found, found_labels = np.float64(prediction['bboxes'][kept]), prediction['labels'][kept]
    taken = match_boxes(boxes, truth_labels, found, found_labels)
    # as in COCO's evaluation, a detection in a crowd region is neither right nor wrong
    crowd_boxes, crowd_labels = _as_arrays(crowd, labels)
    inside = box_ious(found, crowd_boxes, crowd=True) >= MATCH_IOU
    ignored = (taken < 0) & (inside & (crowd_labels == found_labels[:, None])).any(1)
    kept, found, found_labels, taken = (values[~ignored] for values in (kept, found, found_labels, taken))

    states, found_states = [MISSED] * len(boxes), [FALSE_ALARM] * len(found)
    for i, j in enumerate(taken):
        if j >= 0:
            states[j] = found_states[i] = FOUND if found_labels[i] == truth_labels[j] else CONFUSED
        confusion[truth_labels[j] if j >= 0 else -1, found_labels[i]] += 1
    for j, state in enumerate(states):
        confusion[truth_labels[j], -1] += state == MISSED
    scores = prediction['scores'][kept]
    return ImageErrors(
        prediction.get('img_path') or '',
        [Box(_corners(box), int(label), state) for box, label, state in zip(boxes, truth_labels, states)],
        [
            Box(_corners(box), int(label), state, float(score))
            for box, label, state, score in zip(found, found_labels, found_states, scores)
        ],
    )


def _corners(box: np.ndarray) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2


def _as_arrays(annotations: list[dict], labels: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    boxes = np.array([annotation['bbox'] for annotation in annotations], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes, np.array([labels[annotation['category_id']] for annotation in annotations], int)
