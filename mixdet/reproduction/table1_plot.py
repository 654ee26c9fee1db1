"""The plot of Table 1."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Union

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mixdet.engine.atomic import atomic_path
from mixdet.reproduction.table1 import Table1Row
from mixdet.text import plot_text

PANELS = {'MobileNetV1': 'mobilenetv1', 'MobileNetV2': 'mobilenetv2'}
COCO_VAL = 'instances_val2017, 5000 images'  # the data set whose AP is comparable with the paper's


def plot_table1(rows: Sequence[Table1Row], path: Union[str, Path]) -> None:
    """Draw mAP against multiply-adds into a PNG, a panel for each MobileNet as in the paper: its points and ours.

    AP on other data than COCO's validation set has its own axis on the right. Trained MixNets are in both panels.
    """
    figure = Figure(figsize=(12, 5), layout='constrained')
    data_sets = list(dict.fromkeys(data for row in rows for data in row.trained))
    for axes, (title, prefix) in zip(figure.subplots(1, 2), PANELS.items()):
        axes.set(title=plot_text(title), xlabel='multiply-adds, $10^9$', ylabel='COCO mAP, %')
        in_paper = [(row.paper, row.name) for row in rows if row.name.startswith(prefix) and row.paper]
        points = [(paper.macs, paper.map, name) for paper, name in in_paper]
        if points:
            _scatter(axes, points, marker='o', label="the paper's figures")
        shown = [row for row in rows if row.name.startswith((prefix, 'mixnet'))]
        right = None
        for data in data_sets:
            points = [
                (row.as_trained.macs / 1e9, 100 * statistics.mean(row.trained[data]), row.name)
                for row in shown
                if data in row.trained
            ]
            if not points:
                continue
            target = axes
            if not data.endswith(COCO_VAL):
                right = right or axes.twinx()
                right.set_ylabel('AP on other data, %')
                target = right
            _scatter(
                target, points, marker='s', label=plot_text(f'ours: {data}'), color=f'C{1 + data_sets.index(data)}'
            )
        handles = [handle for part in (axes, right) if part for handle in part.get_legend_handles_labels()[0]]
        if handles:
            axes.legend(handles=handles, loc='best', fontsize=8)
        axes.grid(alpha=0.3)
        axes.margins(x=0.2, y=0.1)  # room for the names
    with atomic_path(Path(path)) as partial:
        figure.savefig(partial, dpi=150)


def _scatter(axes: Axes, points: Sequence[tuple[float, float, str]], **style: Any) -> None:
    axes.scatter([x for x, _, _ in points], [y for _, y, _ in points], **style)
    for x, y, name in points:
        axes.annotate(plot_text(name.partition('-')[2]), (x, y), xytext=(4, 4), textcoords='offset points', fontsize=8)
