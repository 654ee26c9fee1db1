import mmcv
import numpy as np
import pytest
from PIL import Image

from mixdet.evaluation.details import FALSE_ALARM, FOUND, MISSED, Box
from mixdet.report.pictures import (
    COLORS,
    FONT,
    GAP,
    IGNORED,
    SIDE,
    box_color,
    draw_boxes,
    draw_errors,
    remove_pictures,
    save_pictures,
)


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
    top = right[int(10 * 6.4)]  # the upper edge of the box found: 10..40 of 100 px, drawn 6.4 times as large
    assert near(top[None, 64:256], COLORS[FOUND]) > 100 and not near(top[None, 270:350], COLORS[FOUND])


def test_labels_of_small_boxes(image):
    """A small ground truth box that was found has none, a detection always has: also one of score 1."""
    corners = (50, 20, 55, 25)  # 32 px wide as drawn
    found = image._replace(truth=[Box(corners, 0, FOUND)], detections=[Box(corners, 0, FOUND, 1.0)])
    pixels = np.array(draw_errors(found, ['cat']))
    above = pixels[110:126]  # where a label is, 20 px high, above y = 20 * 6.4
    assert not near(above[:, :SIDE], COLORS[FOUND]) and near(above[:, SIDE + GAP :], COLORS[FOUND]) > 100
    missed = image._replace(truth=[Box(corners, 0, MISSED)], detections=[])
    assert near(np.array(draw_errors(missed, ['cat']))[110:126, :SIDE], COLORS[MISSED]) > 100


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P'])
def test_images_of_any_kind_can_be_drawn(image, tmp_path, mode):
    Image.new(mode, (30, 200)).save(tmp_path / 'b.png')
    assert draw_errors(image._replace(path=str(tmp_path / 'b.png')), ['cat', 'dog']).height == SIDE


def test_letters_can_be_read():
    """Side by side on a laptop of 1366 px, a picture fills half of the page and still has letters of 8 px."""
    assert FONT * (1366 / 2) / (2 * SIDE + GAP) > 8


@pytest.mark.parametrize('name', ['a\nb', '$\\frac$', '\x1b[0m', 'x' * 500, '\udce9', ''])
def test_any_name_can_be_drawn(image, tmp_path, name):
    records = save_pictures([image], [name, 'dog'], tmp_path, 'worst')
    assert [record['picture'] for record in records] == ['worst_1.jpg']  # not left out as one that cannot be read
    assert (tmp_path / 'worst_1.jpg').is_file() and records[0]['truth'][0]['name'] == name


def test_boxes_without_a_state_have_the_colours_of_their_classes():
    assert box_color(0, 'labelled') != box_color(1, 'labelled') == box_color(9, 'labelled')
    assert box_color(0, IGNORED) == box_color(1, IGNORED) and box_color(1, FOUND) == COLORS[FOUND]
    boxes = [Box((10, 10, 60, 60), 1, 'labelled'), Box((70, 70, 95, 95), 0, IGNORED)]
    pixels = np.array(draw_boxes(Image.new('RGB', (100, 100)), boxes, ['cat', 'dog']))
    assert near(pixels, box_color(1, 'labelled')) > 1000 and 100 < near(pixels[440:], box_color(0, IGNORED)) < 4000


def test_bare_pictures_are_kept_for_the_page(image, tmp_path):
    large = tmp_path / 'large.png'
    Image.new('RGB', (2000, 1000)).save(large)
    (first, second) = save_pictures([image, image._replace(path=str(large))], ['cat', 'dog'], tmp_path, 'best')
    assert (first['bare'], first['size'], second['size']) == ('images/best_1.jpg', [100, 50], [2000, 1000])
    sizes = [mmcv.imread(tmp_path / record['bare']).shape for record in (first, second)]
    assert sizes == [(50, 100, 3), (480, 960, 3)]  # not enlarged: the page does that
    assert [box['score'] for box in first['detections']] == [0.4, 0.9]  # the most confident is drawn last
    assert save_pictures([], [], tmp_path, 'best') == [] and not list(tmp_path.glob('**/best_*'))


def test_only_its_own_pictures_are_removed(tmp_path):
    (tmp_path / 'images').mkdir()
    for name in ('worst_1.jpg', 'worst_12.jpg', 'worst_case.jpg', 'best_1.jpg', 'images/worst_1.jpg'):
        (tmp_path / name).touch()
    remove_pictures(tmp_path, 'worst')
    assert sorted(path.name for path in tmp_path.rglob('*.jpg')) == ['best_1.jpg', 'worst_case.jpg']
