"""``mixdet.PhotoMetricDistortion`` against MMDetection's."""

import itertools

import mmdet.datasets.transforms as upstream
import numpy as np
import pytest
from mmdet.datasets.transforms import PackDetInputs

from mixdet.datasets import PhotoMetricDistortion, photometric
from mixdet.errors import UserError
from mixdet.registry import TRANSFORMS


def picture(height: int = 24, width: int = 16) -> np.ndarray:
    """All kinds of colours, also black, white, grey and pure ones."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    pixels[:3] = pixels[:3] // 9
    pixels[3:5] = pixels[3:5, :, :1]
    pixels[5, :8] = list(itertools.product((0, 255), repeat=3))
    return pixels


@pytest.mark.parametrize('flags', list(itertools.product((0, 1), repeat=6)))
def test_each_choice_of_steps_equals_mmdetection(flags, monkeypatch):
    theirs, ours = upstream.PhotoMetricDistortion(), PhotoMetricDistortion()
    for delta, alpha, factor, degrees in ((25.5, 1.4, 1.45, -17.3), (-31.0, 0.55, 0.6, 11.2), (7.0, 0.8, 1.2, 3.0)):
        drawn = (*flags, delta, alpha, factor, degrees, np.array([2, 0, 1]))
        for transform in (theirs, ours):
            monkeypatch.setattr(transform, '_random_flags', lambda drawn=drawn: drawn)
        expected = theirs(dict(img=picture()))['img']
        found = ours(dict(img=picture()))['img']
        assert found.dtype == np.float32 and found.shape == expected.shape
        assert np.abs(found - expected).max() < 0.01


def test_the_same_seed_draws_the_same():
    parameters = (40, (0.4, 1.2), (0.3, 1.7), 9)
    theirs, ours = upstream.PhotoMetricDistortion(*parameters), PhotoMetricDistortion(*parameters)
    for seed in range(60):
        np.random.seed(seed)
        expected, following = theirs(dict(img=picture()))['img'], np.random.random_sample()
        np.random.seed(seed)
        found = ours(dict(img=picture()))['img']
        assert np.random.random_sample() == following
        assert np.abs(found - expected).max() < 0.01


@pytest.mark.parametrize('strip', [1, 50, 10**6])
def test_the_size_of_strips_makes_no_difference(strip, monkeypatch):
    def distorted():
        np.random.seed(3)
        return PhotoMetricDistortion()(dict(img=picture(23, 17)))['img']

    expected = distorted()
    monkeypatch.setattr(photometric, 'STRIP', strip)
    assert np.array_equal(distorted(), expected)


@pytest.mark.parametrize('size', [(1, 1), (1, 300), (300, 1)])
def test_narrow_images(size):
    pixels = np.full((*size, 3), 90, np.uint8)
    np.random.seed(0)
    assert PhotoMetricDistortion()(dict(img=pixels))['img'].shape == pixels.shape
    assert (pixels == 90).all()


def test_packed_as_other_images_are():
    np.random.seed(0)
    image = PhotoMetricDistortion()(dict(img=picture()))['img']
    packed = PackDetInputs(())(dict(img=image))['inputs']
    assert packed.is_contiguous() and packed.permute(1, 2, 0).tolist() == image.tolist()


def test_an_image_of_another_type_is_left_to_mmdetection():
    np.random.seed(0)
    expected = upstream.PhotoMetricDistortion()(dict(img=picture().astype(np.float32)))['img']
    np.random.seed(0)
    assert np.array_equal(PhotoMetricDistortion()(dict(img=picture().astype(np.float32)))['img'], expected)


@pytest.mark.parametrize('shape', [(4, 4), (4, 4, 1), (4, 4, 4)])
def test_an_image_without_three_channels_is_refused(shape):
    with pytest.raises(UserError, match=r'a\.png has the shape .*, not three channels'):
        PhotoMetricDistortion()(dict(img=np.zeros(shape, np.uint8), img_path='a.png'))


def test_registered_and_described():
    transform = TRANSFORMS.build(dict(type='mixdet.PhotoMetricDistortion', hue_delta=7))
    assert isinstance(transform, PhotoMetricDistortion)
    assert repr(transform).endswith('hue_delta=7)')
