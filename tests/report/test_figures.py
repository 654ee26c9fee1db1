import io

import numpy as np
import pytest

from mixdet.report.figures import (
    POINTS,
    classes_figure,
    confusion_figure,
    line_figure,
    precision_recall_figure,
    sizes_figure,
    to_svg,
)


def test_svg_takes_the_pages_colours_and_refers_to_nothing_outside():
    svg = to_svg(line_figure({'loss': ([1, 2, 3], [3.0, float('nan'), 1.0]), 'cls': ([1], [1])}, 'x', 'y'), 'a < b')
    assert svg.startswith('<svg viewBox=') and '<title>a &lt; b</title>' in svg and svg.rstrip().endswith('</svg>')
    assert 'currentColor' in svg and 'var(--line)' in svg and '<metadata>' not in svg and 'DejaVu' not in svg


def test_long_curves_are_averaged():
    axes = line_figure({'loss': (range(10 * POINTS), [0, 2] * (5 * POINTS))}, 'x', 'y').axes[0]
    (line,) = axes.lines
    assert len(line.get_xdata()) == POINTS and set(line.get_ydata()) == {1.0}


@pytest.mark.parametrize('classes', [1, 3, 40])
def test_figures_for_few_and_many_classes(classes, evaluation_details):
    names = [f'class {i}' for i in range(max(classes, 2))][: max(classes, 2)]
    details = evaluation_details(names)
    content = dict(
        classes=details.classes,
        precision=dict(zip(names, details.precision.tolist())),
        mean_precision={iou: curve.tolist() for iou, curve in details.mean_precision.items()},
        confusion=details.confusion.tolist(),
    )
    axes = confusion_figure(content).axes[0]
    shown = min(len(names), 25)
    assert len(axes.get_xticks()) == shown + 1 and {text.get_text() for text in axes.texts} == {'7', '2', '3', '4'}
    legend = precision_recall_figure(content).axes[0].get_legend().get_texts()
    assert [text.get_text() for text in legend] == (names if classes < 9 else ['each of 40 classes', 'mean'])


def drawn(figure, axis='y'):
    """The labels of an axis that lie inside it, as they are drawn."""
    figure.savefig(io.BytesIO(), format='png')
    axes = figure.axes[0]
    low, high = sorted(axes.get_ylim() if axis == 'y' else axes.get_xlim())
    ticks = axes.get_yticklabels() if axis == 'y' else axes.get_xticklabels()
    places = axes.get_yticks() if axis == 'y' else axes.get_xticks()
    return [tick.get_text() for tick, place in zip(ticks, places) if low <= place <= high]


@pytest.mark.parametrize('values', [
    [6.2, 5.9], [6.0, 6.0], [9.5, 3.0], [9.5, 1.0, 0.3], [50, 1, 0.02], [4e4, 1, 1e-5], [0.31, 0.29], [2e-6, 1e-6],
])  # fmt: skip
def test_a_loss_axis_has_plain_round_numbers(values):
    labels = drawn(line_figure({'loss': (range(len(values)), values)}, 'iteration', 'loss', log=True))
    assert 2 <= len(labels) <= 12 and '' not in labels and len(set(labels)) == len(labels), labels
    assert not [label for label in labels if '$' in label or '\N{MULTIPLICATION SIGN}' in label]
    assert all(len(f'{float(label):.6g}') <= 8 for label in labels), labels


@pytest.mark.parametrize(('values', 'scale'), [
    ([3, 0, 1], 'log'), ([0, 0], 'linear'), ([2, -1], 'linear'), ([], 'linear'), ([float('nan')], 'linear'),
    ([float('inf'), 1.0], 'log'),
])  # fmt: skip
def test_losses_that_a_logarithm_does_not_know(values, scale):
    """Zero, as of data without boxes, or negative; a curve is never left out."""
    axes = line_figure({'loss': (range(len(values)), values)}, 'iteration', 'loss', log=True).axes[0]
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert all(low <= value <= high for value in values if np.isfinite(value) and (value > 0 or scale == 'linear'))


def test_epochs_are_marked_only_where_there_was_a_validation():
    assert drawn(line_figure({'AP': ([4, 8, 12], [0.1, 0.2, 0.3])}, 'epoch', 'AP', steps=True), 'x') == ['4', '8', '12']
    steps = list(range(5, 301, 5))
    labels = drawn(line_figure({'AP': (steps, steps)}, 'epoch', 'AP', steps=True), 'x')
    assert len(labels) <= 7 and {int(label) for label in labels} <= set(steps) and '300' in labels
    assert drawn(line_figure({'a': ([2, 4], [0, 1]), 'b': ([3], [1])}, 'epoch', 'AP', steps=True), 'x') == [
        '2',
        '3',
        '4',
    ]
    assert line_figure({'AP': ([], [])}, 'epoch', 'AP', steps=True).axes


NAMES = [r'$\frac$', '$', '_hidden', 'a\nb', 'x' * 300, '<b>', '\N{CJK UNIFIED IDEOGRAPH-72D7}', '\udce9', '$x^2$', '']


def test_names_of_users_are_no_formulas(evaluation_details, recwarn):
    details = evaluation_details(NAMES)
    content = dict(
        classes=details.classes,
        precision=dict(zip(NAMES[:8], details.precision.tolist())),
        mean_precision={iou: curve.tolist() for iou, curve in details.mean_precision.items()},
        confusion=details.confusion.tolist(),
    )
    rows = [dict(name=name, boxes=3) for name in NAMES]
    figures = [precision_recall_figure(content), confusion_figure(content), classes_figure(rows)]
    for figure in figures:
        svg = to_svg(figure, NAMES[0])
        svg.encode()
        assert r'$\frac$' in svg and '$x' not in svg[: svg.index('>')] and 'x' * 30 not in svg
    legend = figures[0].axes[0].get_legend().get_texts()
    assert len(legend) == 8  # also of the name that begins with an underscore
    curves = {name: ([1, 2], [1, 2]) for name in NAMES}
    assert len(line_figure(curves, 'x', 'y').axes[0].get_legend().get_texts()) == len(NAMES) - 1  # not of the empty one
    assert not list(recwarn)


def test_sizes_and_classes_of_a_training_set():
    edges = [0.0, *(2 ** (k / 2) for k in range(4, 21))]
    axes = sizes_figure(dict(edges=edges, counts=[0] * 4 + [3, 2, 1] + [0] * 11)).axes[0]
    assert [bar.get_height() for bar in axes.patches if bar.get_height()] == [3, 2, 1]
    assert [text.get_text().strip() for text in axes.texts] == ['small', 'medium']
    assert edges[round(axes.lines[0].get_xdata()[0])] == 32  # COCO's limit, where a bar ends
    rows = [dict(name=f'class {i}', boxes=i) for i in range(40)]
    bars = classes_figure(rows[:5]).axes[0]
    assert [bar.get_width() for bar in bars.patches] == [4, 3, 2, 1, 0]
    assert [tick.get_text() for tick in bars.get_yticklabels()] == [f'class {i}' for i in (4, 3, 2, 1, 0)]
    assert not classes_figure(rows).axes[0].patches  # too many for bars
    assert sizes_figure(dict(edges=edges, counts=[0] * 18)).axes and classes_figure([]).axes
