import numpy as np
import pytest
from PIL import Image

from mixdet.evaluation.details import FALSE_ALARM, FOUND, MISSED, Box
from mixdet.report.pictures import COLORS, GAP, SIDE, draw_errors


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
