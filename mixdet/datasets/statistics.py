"""What a data set holds: images, and boxes by class and size."""

from collections import Counter
from collections.abc import Sized
from typing import Any

import numpy as np

SMALL, MEDIUM = 32, 96  # px, the side of a square of COCO's largest small, and largest medium, area
SIDES = [0, *(2 ** (k / 2) for k in range(4, 21))]  # px, edges of the histogram: 4, 5.7, 8 ... 1024 and above
MOST_IMAGES = 200_000  # of larger sets, so many images are taken at equal distances
SIZES_LISTED = 3


def box_statistics(dataset: Any) -> dict:
    """Statistics of the boxes that a data set of MMDetection trains, in values that JSON can hold.

    Args:
        dataset: built and filtered as for training; what repeats one (``RepeatDataset``) is looked through, so that
            every image counts once.

    Returns:
        ``images``, of which ``counted`` (fewer only in huge sets), ``empty`` ones without a box; ``boxes``, and
        ``ignored`` ones (crowds), which are not trained and not counted elsewhere; ``per_image`` (mean, median, most);
        the most frequent image ``sizes`` as (width, height, images); for each of ``classes`` its boxes, images, boxes
        by size, and the median side (square root of the area) in px and in per cent of the image's; ``sides``, a
        histogram of all sides: ``edges`` in px and ``counts``. All sizes are those of the original images.

    Raises:
        AttributeError, KeyError: if the data set does not give out its annotations as MMDetection's do.
    """
    dataset = _once(dataset)
    names = [str(name) for name in dataset.metainfo.get('classes', ())]
    indices = range(0, len(dataset), -(-len(dataset) // MOST_IMAGES) or 1)
    sizes: Counter = Counter()
    boxes: list[tuple[int, int, float, float]] = []  # image, class, side in px, side as a part of the image's
    ignored = 0
    for image, index in enumerate(indices):
        info = dataset.get_data_info(index)
        width, height = info.get('width') or 0, info.get('height') or 0
        sizes[width, height] += 1
        for instance in info['instances']:
            if instance.get('ignore_flag'):
                ignored += 1
                continue
            x1, y1, x2, y2 = instance['bbox'][:4]
            side = (max(x2 - x1, 0) * max(y2 - y1, 0)) ** 0.5
            boxes.append((image, instance['bbox_label'], side, side / (width * height) ** 0.5 if width * height else 0))
    table = np.array(boxes, float).reshape(-1, 4)
    per_image = np.bincount(table[:, 0].astype(int), minlength=len(indices))
    counts, _ = np.histogram(table[:, 2], [*SIDES, np.inf])
    return dict(
        images=len(dataset),
        counted=len(indices),
        empty=int((per_image == 0).sum()),
        boxes=len(boxes),
        ignored=ignored,
        per_image=dict(
            mean=round(float(per_image.mean()), 2) if len(per_image) else 0.0,
            median=float(np.median(per_image)) if len(per_image) else 0.0,
            most=int(per_image.max(initial=0)),
        ),
        sizes=[[int(width), int(height), count] for (width, height), count in sizes.most_common(SIZES_LISTED)],
        classes=[_class_row(name, table[table[:, 1] == label]) for label, name in enumerate(names)],
        sides=dict(edges=[round(edge, 1) for edge in SIDES], counts=counts.tolist()),
    )


def _class_row(name: str, boxes: np.ndarray) -> dict:
    sides = boxes[:, 2]
    small, large = int((sides < SMALL).sum()), int((sides > MEDIUM).sum())
    return dict(
        name=name,
        boxes=len(boxes),
        images=len(np.unique(boxes[:, 0])),
        small=small,
        medium=len(boxes) - small - large,
        large=large,
        side=round(float(np.median(sides)), 1) if len(boxes) else 0.0,
        percent=round(100 * float(np.median(boxes[:, 3])), 1) if len(boxes) else 0.0,
    )


def _once(dataset: Any) -> Any:
    """The data set inside wrappers that show the same images again or mixed."""
    while isinstance(getattr(dataset, 'dataset', None), Sized):
        dataset = dataset.dataset
    return dataset
