"""Figures of a training and of an evaluation, as PNG files, and as SVG for a page that may be light or dark."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mixdet.text import plot_text

INK, GRID, CARD = '#3b4252', '#d9dde5', '#fdfdfe'  # replaced in SVG by the page's own colours
SERIES = ('#3f7cf4', '#ef6c1a', '#12a178', '#a65bd6', '#d6336c', '#b58900', '#1098ad', '#868e96')
STYLE = {
    'font.size': 9,
    'axes.edgecolor': GRID,
    'axes.labelcolor': INK,
    'axes.titlecolor': INK,
    'axes.grid': True,
    'axes.axisbelow': True,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'grid.color': GRID,
    'grid.linewidth': 0.6,
    'text.color': INK,
    'xtick.color': INK,
    'ytick.color': INK,
    'xtick.major.size': 0,
    'ytick.major.size': 0,
    'legend.facecolor': CARD,
    'legend.edgecolor': 'none',
    'legend.framealpha': 0.75,
    'lines.linewidth': 1.6,
    'lines.solid_capstyle': 'round',
    'svg.fonttype': 'none',
    'svg.hashsalt': 'mixdet',
}
POINTS = 400  # of a curve; longer ones are averaged
NAMED = 8  # up to so many classes, each has a colour and a name
MATRIX = 25  # classes shown in the confusion matrix


def line_figure(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    log: bool = False,
    legend: bool = True,
) -> Figure:
    """Lines over training: by name the x and y of each. Values that are not finite leave gaps."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes()
        for i, (name, curve) in enumerate(curves.items()):
            x, y = _thinned(*curve)
            marker = 'o' if len(x) < 30 else ''
            axes.plot(x, y, label=plot_text(name), color=SERIES[i % len(SERIES)], marker=marker, markersize=3.5)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        if log:
            axes.set_yscale('log')
        else:
            axes.set_ylim(0, 1.08 * max((max(y, default=0) for _, y in curves.values()), default=0) or 1)
        if legend and len(curves) > 1:
            axes.legend(loc='best', fontsize=8)
        return figure


def precision_recall_figure(details: dict) -> Figure:
    """Precision over recall at IoU .50 of each class; if there are many, their mean stands out instead.

    ``details`` is what ``write_details`` returns.
    """
    recall = np.linspace(0, 1, 101)
    known = {name: curve for name, curve in details['precision'].items() if max(curve) >= 0}
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes()
        for i, (name, curve) in enumerate(known.items()):
            if len(known) <= NAMED:
                axes.plot(recall, curve, color=SERIES[i], label=plot_text(name))
            else:
                axes.plot(recall, curve, color=SERIES[-1], alpha=0.25, linewidth=0.7)
        if len(known) > NAMED:
            axes.plot([], [], color=SERIES[-1], alpha=0.5, linewidth=0.7, label=f'each of {len(known)} classes')
            axes.plot(recall, details['mean_precision']['0.50'], color=SERIES[0], linewidth=2.2, label='mean')
        axes.set(xlabel='recall', ylabel='precision, IoU .50', xlim=(0, 1), ylim=(0, 1.02))
        if known:
            axes.legend(loc='best', fontsize=8)
        return figure


def iou_figure(details: dict) -> Figure:
    """Mean precision over recall at several IoU thresholds: how well the boxes fit."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes()
        for i, iou in enumerate(('0.50', '0.60', '0.70', '0.75', '0.80', '0.90')):
            curve = details['mean_precision'][iou]
            axes.plot(np.linspace(0, 1, 101), curve, color=SERIES[0], alpha=1 - 0.15 * i, label=f'IoU {iou[1:]}')
        axes.set(xlabel='recall', ylabel='precision, mean of classes', xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc='center left', bbox_to_anchor=(1, 0.5), fontsize=8, handlelength=1.2)  # beside the lines
        return figure


def confusion_figure(details: dict) -> Figure:
    """Counts of ground truth class by detected class, coloured by their share of the row; at most ``MATRIX`` classes,
    those with most boxes.
    """
    matrix = np.array(details['confusion'])
    boxes = np.array([row['boxes'] for row in details['classes']])
    shown = np.sort(np.argsort(-boxes, kind='stable')[:MATRIX])
    names = [plot_text(details['classes'][k]['name']) for k in shown]
    counts = matrix[np.ix_([*shown, -1], [*shown, -1])]
    totals = matrix.sum(1)[[*shown, -1]]
    blue = LinearSegmentedColormap.from_list('alpha', [(0.25, 0.49, 0.96, 0.0), (0.25, 0.49, 0.96, 0.8)])
    side = max(3.6, 1.6 + 0.24 * len(names))
    with matplotlib.rc_context({**STYLE, 'axes.grid': False}):
        figure = Figure(figsize=(side, side), layout='constrained')
        figure.patch.set_alpha(0)
        axes = figure.add_subplot(facecolor='none')
        axes.imshow(counts / np.maximum(totals, 1)[:, None], cmap=blue, vmin=0, vmax=1, aspect='equal')
        size = 8 if len(names) <= 12 else 6.5
        axes.set_xticks(range(len(names) + 1), [*names, 'missed'], rotation=90 if len(names) > 3 else 0, fontsize=size)
        axes.set_yticks(range(len(names) + 1), [*names, 'background'], fontsize=size)
        axes.set(xlabel='detected as', ylabel='ground truth')
        for i, j in np.argwhere(counts):
            axes.text(j, i, str(counts[i, j]), ha='center', va='center', fontsize=size)
        return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write ``figure`` on a white background."""
    figure.savefig(path, dpi=160, facecolor='white')


def to_svg(figure: Figure, title: str) -> str:
    """``figure`` as an ``<svg>`` element with a title for screen readers, its ink the colour of the page's text."""
    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format='svg', metadata={'Date': None}, transparent=True, bbox_inches='tight')
    svg = out.getvalue()[out.getvalue().index('<svg') :]
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
    svg = re.sub(
        r' id="(?:figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|legend|Image|image)[^"]*"', '', svg
    )
    svg = svg.replace(INK, 'currentColor').replace(GRID, 'var(--line)').replace(CARD, 'var(--card)')
    svg = re.sub(r"font-family: [^;\"]*|'DejaVu Sans'[^;\"]*", _page_font, svg)
    title = title.replace('&', '&amp;').replace('<', '&lt;')
    # from the width the page works out how large the letters are to be
    return re.sub(
        r'<svg [^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>',
        rf'<svg viewBox="0 0 \1 \2" style="--width:\1px" role="img"><title>{title}</title>',
        svg,
        count=1,
    )


def _page_font(match: re.Match) -> str:
    return 'font-family: inherit' if match[0].startswith('font-family') else 'sans-serif'


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.7, 2.6), layout='constrained')
    figure.patch.set_alpha(0)
    return figure, figure.add_subplot(facecolor='none')


def _thinned(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """At most ``POINTS`` points, each the mean of its neighbours."""
    xs, ys = np.array(x, float), np.array(y, float)
    if len(xs) <= POINTS:
        return xs, ys
    groups = np.array_split(np.arange(len(xs)), POINTS)
    return np.array([xs[group].mean() for group in groups]), np.array([ys[group].mean() for group in groups])
