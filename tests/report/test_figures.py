import pytest

from mixdet.report.figures import POINTS, confusion_figure, line_figure, precision_recall_figure, to_svg


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
