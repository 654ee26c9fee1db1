"""Figures of a training and of an evaluation, as PNG files, and as SVG for a page that may be light or dark."""

import contextlib
import html
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Optional

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from mixdet.datasets.statistics import MEDIUM, SMALL
from mixdet.engine.atomic import atomic_path
from mixdet.text import plot_text, printable

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
TICKS = 5  # of an axis, about
NAMED = 8  # up to so many classes, each has a colour and a name
MATRIX = 25  # classes shown in the confusion matrix
BARS = 15  # classes that each have a bar
SHORT = 28  # characters of a name in a figure or on a picture


def line_figure(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    log: bool = False,
    legend: bool = True,
    steps: bool = False,
    colors: Optional[Mapping[str, str]] = None,
) -> Figure:
    """Lines over training: by name the x and y of each. Values that are not finite leave gaps.

    Args:
        curves: the lines.
        xlabel, ylabel: names of the axes.
        log: a logarithmic y axis, on which zeros leave gaps; it stays linear if there is no positive value, or a
            negative one.
        legend: whether several lines are named in the figure.
        steps: x is marked only where there are points, such as after validations.
        colors: of the lines by name.
    """
    with _styled():
        figure, axes = _axes()
        finite = np.concatenate([np.array(y, float).ravel() for _, y in curves.values()] or [np.zeros(0)])
        finite = finite[np.isfinite(finite)]
        log = log and bool((finite > 0).any() and (finite >= 0).all())
        for i, (name, curve) in enumerate(curves.items()):
            x, y = _thinned(*curve)
            if log:
                y = np.where(y > 0, y, np.nan)
            color = (colors or {}).get(name, SERIES[i % len(SERIES)])
            marker = 'o' if len(x) < 30 else ''
            axes.plot(x, y, label=figure_text(name), color=color, marker=marker, markersize=3.5)
        axes.set(xlabel=plot_text(xlabel), ylabel=plot_text(ylabel))
        places = sorted({float(value) for x, _ in curves.values() for value in x}) if steps else []
        axes.xaxis.set_major_locator(
            FixedLocator(_some(places)) if places else MaxNLocator(TICKS, integer=True, min_n_ticks=1)
        )
        if log:
            axes.set_yscale('log')
            axes.yaxis.set_major_locator(_log_locator(finite[finite > 0]))
            axes.yaxis.set_minor_locator(NullLocator())
        else:
            low, high = min(finite.min(initial=0), 0), max(finite.max(initial=0), 0)
            axes.set_ylim(1.08 * low, 1.08 * high or (1 if not low else 0))
            axes.yaxis.set_major_locator(MaxNLocator(TICKS))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:.6g}'))
        if legend and len(curves) > 1:
            axes.legend(loc='best', fontsize=8)
        return figure


def sizes_figure(sides: dict) -> Figure:
    """How many boxes there are by their side, from the ``sides`` of ``box_statistics``; COCO's size limits marked."""
    edges, counts = sides['edges'], sides['counts']
    with _styled():
        figure, axes = _axes()
        axes.bar(range(len(counts)), counts, width=0.86, align='edge', color=SERIES[0])
        marked = range(1, len(edges), 2)
        axes.set_xticks(marked, [f'{edges[k]:.0f}' for k in marked])
        for limit, name in ((SMALL, 'small'), (MEDIUM, 'medium')):
            place = float(np.interp(np.log2(limit), np.log2(edges[1:]), range(1, len(edges))))
            axes.axvline(place, color=INK, linewidth=0.8, linestyle=':')
            axes.text(
                place - 0.15,
                1.0,
                plot_text(name),
                ha='right',
                va='top',
                fontsize=8,
                transform=axes.get_xaxis_transform(),
            )
        axes.set(xlabel='side of the box, px of the original image', ylabel='boxes')
        used = np.flatnonzero(counts)
        if len(used):
            axes.set_xlim(max(used[0] - 1, 0), used[-1] + 2)
            axes.set_ylim(0, 1.12 * max(counts))  # the names of the limits stand above the bars
        axes.yaxis.set_major_locator(MaxNLocator(TICKS, integer=True))
        axes.grid(axis='x', visible=False)
        return figure


def classes_figure(classes: Sequence[dict]) -> Figure:
    """Boxes of each class, from the ``classes`` of ``box_statistics``; of many classes the sorted counts alone."""
    ordered = sorted(classes, key=lambda row: -row['boxes'])
    with _styled():
        figure, axes = _axes()
        counts = [row['boxes'] for row in ordered]
        if len(ordered) <= BARS:
            places = range(len(ordered))
            axes.barh(places, counts, color=SERIES[0], height=0.7)
            axes.set_yticks(places, [figure_text(row['name']) for row in ordered], fontsize=8)
            axes.invert_yaxis()
            axes.set(xlabel='boxes')
            axes.grid(axis='y', visible=False)
            value_axis: Axis = axes.xaxis
        else:
            axes.fill_between(range(1, len(counts) + 1), counts, color=SERIES[0], alpha=0.6, linewidth=0)
            axes.set(xlabel='class, most frequent first', ylabel='boxes', xlim=(1, len(counts)))
            axes.set_ylim(bottom=0)
            value_axis = axes.yaxis
        value_axis.set_major_locator(MaxNLocator(TICKS - 1, integer=True))
        return figure


def precision_recall_figure(details: dict) -> Figure:
    """Precision over recall at IoU .50 of each class; if there are many, their mean stands out instead.

    ``details`` is what ``write_details`` returns.
    """
    recall = np.linspace(0, 1, 101)
    known = {name: curve for name, curve in details['precision'].items() if max(curve) >= 0}
    with _styled():
        figure, axes = _axes()
        for i, (name, curve) in enumerate(known.items()):
            if len(known) <= NAMED:
                axes.plot(recall, curve, color=SERIES[i], label=figure_text(name))
            else:
                axes.plot(recall, curve, color=SERIES[-1], alpha=0.25, linewidth=0.7)
        if len(known) > NAMED:
            axes.plot(
                [], [], color=SERIES[-1], alpha=0.5, linewidth=0.7, label=plot_text(f'each of {len(known)} classes')
            )
            axes.plot(recall, details['mean_precision']['0.50'], color=SERIES[0], linewidth=2.2, label='mean')
        axes.set(xlabel='recall', ylabel='precision, IoU .50', xlim=(0, 1), ylim=(0, 1.02))
        if known:
            axes.legend(loc='best', fontsize=8)
        return figure


def iou_figure(details: dict) -> Figure:
    """Mean precision over recall at several IoU thresholds: how well the boxes fit."""
    with _styled():
        figure, axes = _axes()
        for i, iou in enumerate(('0.50', '0.60', '0.70', '0.75', '0.80', '0.90')):
            curve = details['mean_precision'][iou]
            axes.plot(
                np.linspace(0, 1, 101), curve, color=SERIES[0], alpha=1 - 0.15 * i, label=plot_text(f'IoU {iou[1:]}')
            )
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
    names = [figure_text(details['classes'][k]['name']) for k in shown]
    counts = matrix[np.ix_([*shown, -1], [*shown, -1])]
    totals = matrix.sum(1)[[*shown, -1]]
    blue = LinearSegmentedColormap.from_list('alpha', [(0.25, 0.49, 0.96, 0.0), (0.25, 0.49, 0.96, 0.8)])
    side = max(3.6, 1.6 + 0.24 * len(names))
    with _styled(), matplotlib.rc_context({'axes.grid': False}):
        figure = Figure(figsize=(side, side), layout='constrained')
        figure.patch.set_alpha(0)
        axes = figure.add_subplot(facecolor='none')
        axes.imshow(counts / np.maximum(totals, 1)[:, None], cmap=blue, vmin=0, vmax=1, aspect='equal')
        size = 8 if len(names) <= 12 else 6.5
        axes.set_xticks(range(len(names) + 1), [*names, 'missed'], rotation=90 if len(names) > 3 else 0, fontsize=size)
        axes.set_yticks(range(len(names) + 1), [*names, 'background'], fontsize=size)
        axes.set(xlabel='detected as', ylabel='ground truth')
        for i, j in np.argwhere(counts):
            axes.text(j, i, plot_text(counts[i, j]), ha='center', va='center', fontsize=size)
        return figure


def short_name(name: str) -> str:
    """``name`` in one line of at most ``SHORT`` characters."""
    shown = printable(name)
    return f'{shown[: SHORT - 1]}\N{HORIZONTAL ELLIPSIS}' if len(shown) > SHORT else shown


def figure_text(name: str) -> str:
    """``name`` short and for Matplotlib, which hides labels that begin with an underscore."""
    shown = plot_text(short_name(name))
    return f'\N{ZERO WIDTH SPACE}{shown}' if shown.startswith('_') else shown


def save_png(figure: Figure, path: Path) -> None:
    """Write ``figure`` on a white background."""
    with _styled(), atomic_path(path) as partial:
        figure.savefig(partial, format='png', dpi=160, facecolor='white')


def to_svg(figure: Figure, title: str) -> str:
    """``figure`` as an ``<svg>`` element with a title for screen readers, its ink the colour of the page's text."""
    out = io.StringIO()
    with _styled():
        figure.savefig(out, format='svg', metadata={'Date': None}, transparent=True)
    svg = out.getvalue()[out.getvalue().index('<svg') :]
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
    svg = re.sub(
        r' id="(?:figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|legend|Image|image)[^"]*"', '', svg
    )
    svg = svg.replace(INK, 'currentColor').replace(GRID, 'var(--line)').replace(CARD, 'var(--card)')
    svg = re.sub(r"font-family: [^;\"]*|'DejaVu Sans'[^;\"]*", _page_font, svg)
    title = html.escape(printable(title))
    # from the width the page works out how large the letters are to be
    return re.sub(
        r'<svg [^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>',
        lambda match: (
            f'<svg viewBox="0 0 {match[1]} {match[2]}" style="--width:{match[1]}px" role="img"><title>{title}</title>'
        ),
        svg,
        count=1,
    )


def _page_font(match: re.Match) -> str:
    return 'font-family: inherit' if match[0].startswith('font-family') else 'sans-serif'


@contextlib.contextmanager
def _styled() -> Iterator[None]:
    """Our style; no warning for letters that the font lacks: those of the page have them."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='.*[Gg]lyph')
        yield


def _some(places: Sequence[float]) -> Sequence[float]:
    """At most about ``TICKS`` of ``places`` at equal distances, the last among them."""
    return sorted(places[:: -max(1, -(-len(places) // TICKS))])


def _log_locator(values: np.ndarray) -> Locator:
    """Ticks of a logarithmic axis at round numbers, also where it covers less than a power of ten."""
    decades = np.log10(values.max() / values.min())
    if decades < 0.9:
        return MaxNLocator(TICKS)
    return LogLocator(subs=(1, 2, 5) if decades < 2.2 else (1, 3) if decades < 4 else (1,), numticks=2 * TICKS)


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.3, 2.35), layout='constrained')
    figure.patch.set_alpha(0)
    return figure, figure.add_subplot(facecolor='none')


def _thinned(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """At most ``POINTS`` points, each the mean of its neighbours."""
    xs, ys = np.array(x, float), np.array(y, float)
    if len(xs) <= POINTS:
        return xs, ys
    groups = np.array_split(np.arange(len(xs)), POINTS)
    return np.array([xs[group].mean() for group in groups]), np.array([ys[group].mean() for group in groups])
