"""Parts of images at another size: places of the pixels, borders, reduced images."""

import cv2
import numpy as np
import pytest

from mixdet.datasets.warping import resized_part

FILL = (110, 120, 127)


def ramp(height=240, width=320, reduction=1):
    """Blue grows by half a level a pixel to the right, green downwards; float32."""
    y, x = np.mgrid[0:height:reduction, 0:width:reduction] + (reduction - 1) / 2
    return np.stack([(x + 0.5) / 2, (y + 0.5) / 2, np.zeros_like(x)], 2).astype(np.float32)


@pytest.mark.parametrize('reduction', [1, 2, 4, 8])
@pytest.mark.parametrize('part', [(0, 0, 320, 240), (13, 7, 301, 222), (-40, -90, 333, 260), (200, -10, 500, 100)])
def test_pixels_show_the_place_that_they_stand_for(part, reduction):
    size = (40, 30)
    found = resized_part(ramp(reduction=reduction), part, size, FILL, reduction)
    assert found.shape == (30, 40, 3)
    x = part[0] + (np.arange(40) + 0.5) * (part[2] - part[0]) / 40
    y = part[1] + (np.arange(30) + 0.5) * (part[3] - part[1]) / 30
    inside_x, inside_y = ((place > 16) & (place < side - 16) for place, side in ((x, 320), (y, 240)))
    assert inside_x.sum() > 5 and inside_y.sum() > 5
    inner = found[inside_y][:, inside_x]
    # INTER_LINEAR of a warp has steps of 1/32 px of the reduced image
    assert np.abs(inner[..., 0] - x[inside_x] / 2).max() <= reduction / 32
    assert np.abs(inner[..., 1] - y[inside_y, None] / 2).max() <= reduction / 32
    beyond = (y < -16)[:, None] | (y > 256)[:, None] | (x < -16) | (x > 336)
    assert (found[beyond] == FILL).all()


@pytest.mark.parametrize('part', [(330, 20, 390, 90), (-80, 20, -9, 90), (0, 250, 100, 300)])
@pytest.mark.parametrize('reduction', [1, 4])
def test_a_part_that_misses_the_image_has_the_fill_colour_alone(part, reduction):
    image = ramp(reduction=reduction).astype(np.uint8)
    found = resized_part(image, part, (48, 40), FILL, reduction)
    assert found.shape == (40, 48, 3) and (found == FILL).all()


def test_within_the_image_it_is_a_plain_resize():
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    expected = cv2.resize(image[10:50, 20:80], (33, 44))
    assert np.array_equal(resized_part(image, (20, 10, 80, 50), (33, 44), FILL), expected)


@pytest.mark.parametrize('reduction', [2, 8])
def test_a_side_that_is_no_multiple_of_the_reduction(reduction):
    image = ramp(237, 317, reduction)
    assert image.shape[:2] == (-(-237 // reduction), -(-317 // reduction))
    found = resized_part(image, (0, 0, 317, 237), (20, 15), FILL, reduction)
    x = (np.arange(20) + 0.5) * 317 / 20
    assert np.abs(found[5, 1:-1, 0] - x[1:-1] / 2).max() <= reduction / 32
