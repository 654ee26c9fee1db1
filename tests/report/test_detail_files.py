import csv
import json

import numpy as np
import pytest
from PIL import Image

from mixdet.evaluation.coco import IOU_THRS
from mixdet.evaluation.details import FALSE_ALARM, FOUND, MISSED, Box, Details, ImageErrors
from mixdet.report.detail_files import frequent_confusions, write_details
from mixdet.report.figures import POINTS, confusion_figure, line_figure, precision_recall_figure, to_svg
from mixdet.report.pictures import COLORS, GAP, SIDE, draw_errors


def make_details(classes, images=()):
    numbers = dict(boxes=2, AP=0.5, AP50=0.75, AP75=0.25, AP_small=-1.0, AP_medium=-1.0, AP_large=0.5)
    curve = np.linspace(1, 0, 101)
    confusion = np.zeros((len(classes) + 1,) * 2, int)
    confusion[0, :2], confusion[1, 0], confusion[1, -1] = (7, 2), 3, 4
    return Details(
        [dict(name=name, **numbers, AR=0.6, F1=0.7, score=0.4) for name in classes],
        np.stack([curve] * len(classes)),
        {f'{iou:.2f}': curve for iou in IOU_THRS},
        confusion,
        list(images),
        0.3,
    )


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'a.png'
    Image.fromarray(np.full((50, 100, 3), 128, np.uint8)).save(path)
    truth = [Box((10, 10, 40, 40), 0, FOUND), Box((50, 5, 95, 45), 1, MISSED)]
    return ImageErrors(
        str(path), truth, [Box((10, 10, 40, 40), 0, FOUND, 0.9), Box((60, 20, 70, 48), 0, FALSE_ALARM, 0.4)]
    )


def test_files_of_an_evaluation(tmp_path, image):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/worst_9.jpg').write_bytes(b'of an earlier evaluation')
    gone = image._replace(path=str(tmp_path / 'gone.png'))
    content = write_details(make_details(['cat', 'dog'], [gone, image]), tmp_path / 'out', samples=2)
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'best_1.jpg', 'confusion.png', 'details.json', 'iou.png', 'per_class.csv', 'precision_recall.png',
        'samples_1.jpg', 'worst_1.jpg',
    ]  # fmt: skip
    assert json.loads((tmp_path / 'out/details.json').read_text()) == content
    (record,) = content['pictures']['worst']
    assert record['counts'] == {'found': 1, 'confused': 0, 'missed': 1, 'false alarm': 1} and record['f1'] == 0.5
    with (tmp_path / 'out/per_class.csv').open() as file:
        assert [row['AP'] for row in csv.DictReader(file)] == ['0.5', '0.5']
    assert frequent_confusions(content) == [('dog', 'cat', 3), ('cat', 'dog', 2)]


def near(pixels, color):
    """How many pixels have nearly this colour."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(pixels.astype(int) - wanted).max(-1) < 25).sum())


def test_boxes_are_drawn_on_their_side_in_their_colour(image):
    picture = draw_errors(image, ['cat', 'dog'])
    assert picture.size == (2 * SIDE + GAP, SIDE // 2)
    pixels = np.array(picture)
    left, right = pixels[:, :SIDE], pixels[:, SIDE + GAP :]
    assert near(left, COLORS[FOUND]) > 300 and near(left, COLORS[MISSED]) > 300 and not near(left, COLORS[FALSE_ALARM])
    assert (
        near(right, COLORS[FOUND]) > 300 and near(right, COLORS[FALSE_ALARM]) > 200 and not near(right, COLORS[MISSED])
    )
    top = right[int(10 * 4.8)]  # the upper edge of the box found: 10..40 of 100 px, drawn 4.8 times as large
    assert near(top[None, 48:192], COLORS[FOUND]) > 100 and not near(top[None, 200:260], COLORS[FOUND])


def test_labels_of_small_boxes(image):
    """A small ground truth box that was found has none, a detection always has: also one of score 1."""
    corners = (50, 20, 55, 25)  # 24 px wide as drawn
    found = image._replace(truth=[Box(corners, 0, FOUND)], detections=[Box(corners, 0, FOUND, 1.0)])
    pixels = np.array(draw_errors(found, ['cat']))
    above = pixels[80:92]  # where a label is, 14 px high, above y = 20 * 4.8
    assert not near(above[:, :SIDE], COLORS[FOUND]) and near(above[:, SIDE + GAP :], COLORS[FOUND]) > 100
    missed = image._replace(truth=[Box(corners, 0, MISSED)], detections=[])
    assert near(np.array(draw_errors(missed, ['cat']))[80:92, :SIDE], COLORS[MISSED]) > 100


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P'])
def test_images_of_any_kind_can_be_drawn(image, tmp_path, mode):
    Image.new(mode, (30, 200)).save(tmp_path / 'b.png')
    assert draw_errors(image._replace(path=str(tmp_path / 'b.png')), ['cat', 'dog']).height == SIDE


def test_svg_takes_the_pages_colours_and_refers_to_nothing_outside():
    svg = to_svg(line_figure({'loss': ([1, 2, 3], [3.0, float('nan'), 1.0]), 'cls': ([1], [1])}, 'x', 'y'), 'a < b')
    assert svg.startswith('<svg viewBox=') and '<title>a &lt; b</title>' in svg and svg.rstrip().endswith('</svg>')
    assert 'currentColor' in svg and 'var(--line)' in svg and '<metadata>' not in svg and 'DejaVu' not in svg


def test_long_curves_are_averaged():
    axes = line_figure({'loss': (range(10 * POINTS), [0, 2] * (5 * POINTS))}, 'x', 'y').axes[0]
    (line,) = axes.lines
    assert len(line.get_xdata()) == POINTS and set(line.get_ydata()) == {1.0}


@pytest.mark.parametrize('classes', [1, 3, 40])
def test_figures_for_few_and_many_classes(classes):
    names = [f'class {i}' for i in range(max(classes, 2))][: max(classes, 2)]
    details = make_details(names)
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
