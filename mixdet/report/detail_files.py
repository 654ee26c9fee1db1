"""The details of an evaluation as files: numbers, figures and pictures."""

import csv
import json
from pathlib import Path
from typing import Union

import numpy as np
from matplotlib.figure import Figure

from mixdet.engine.atomic import atomic_path, write_text
from mixdet.evaluation.details import Details
from mixdet.report.figures import confusion_figure, iou_figure, precision_recall_figure, save_png
from mixdet.report.pictures import save_pictures
from mixdet.text import csv_cell

DETAILS_FILE = 'details.json'
WORST, BEST = 8, 4  # pictures


def write_details(details: Details, folder: Union[str, Path], samples: int = 0) -> dict:
    """Write ``details`` into ``folder``: ``details.json``, ``per_class.csv``, the figures as PNG files, and pictures of
    the worst images, the best, and the first ``samples`` of the set.

    Pictures of an earlier evaluation in ``folder`` are replaced. Returns the content of ``details.json``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    groups = dict(samples=details.images[:samples], worst=details.worst_images(WORST), best=details.best_images(BEST))
    content = dict(
        score_thr=details.score_thr,
        classes=details.classes,
        precision={name: _rounded(curve) for name, curve in zip(details.names, details.precision)},
        mean_precision={iou: _rounded(curve) for iou, curve in details.mean_precision.items()},
        confusion=details.confusion.tolist(),
        images=len(details.images),
        pictures={group: save_pictures(images, details.names, folder, group) for group, images in groups.items()},
    )
    write_text(folder / DETAILS_FILE, json.dumps(content) + '\n')
    table = folder / 'per_class.csv'
    with atomic_path(table) as partial, partial.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, details.classes[0], lineterminator='\n')
        writer.writeheader()
        writer.writerows({key: csv_cell(value) for key, value in row.items()} for row in details.classes)
    for name, (_, figure) in evaluation_figures(content).items():
        save_png(figure, folder / f'{name}.png')
    return content


def evaluation_figures(details: dict) -> dict[str, tuple[str, Figure]]:
    """Titles and figures by name, from the content of ``details.json``."""
    return dict(
        precision_recall=('Precision and recall of each class', precision_recall_figure(details)),
        iou=('Precision and recall by IoU threshold', iou_figure(details)),
        confusion=('Confusion matrix', confusion_figure(details)),
    )


def frequent_confusions(details: dict, count: int = 10) -> list[tuple[str, str, int]]:
    """The most frequent confusions: ground truth class, detected class, boxes."""
    names = [row['name'] for row in details['classes']]
    confusion = np.array(details['confusion'])[:-1, :-1]
    np.fill_diagonal(confusion, 0)
    order = np.argsort(-confusion, axis=None, kind='stable')[:count]
    pairs = zip(*np.unravel_index(order, confusion.shape))
    return [(names[i], names[j], int(confusion[i, j])) for i, j in pairs if confusion[i, j]]


def _rounded(curve: np.ndarray) -> list[float]:
    return np.round(curve, 4).tolist()
