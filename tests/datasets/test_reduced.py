"""Reduced decoding: the sizes, what it reads, and what a training gets."""

import re

import cv2
import numpy as np
import pytest
from helpers import shared_path
from hypothesis import given
from hypothesis import strategies as st
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations
from odd_images import write_odd_images

from mixdet.datasets import SSDCrop
from mixdet.datasets.reduced import FLAGS, ReducedLoader, largest_reduction, reduced_shape
from mixdet.errors import UserError

LOADER = dict(type='LoadImageFromFile')


@pytest.mark.parametrize('reduction', FLAGS)
def test_odd_files_are_read_as_whole_ones_are(tmp_path, reduction):
    """EXIF, grey, CMYK, 16 bit, palettes, one pixel, broken files, PNG under the name of JPEG ..."""
    readable, loader, reductions = write_odd_images(tmp_path), ReducedLoader(LOADER), {}
    for name in readable:
        whole = dict(img_path=str(tmp_path / name))
        try:
            LoadImageFromFile()(whole)
        except Exception as error:
            with pytest.raises(type(error)):
                loader.load(dict(img_path=str(tmp_path / name), height=32, width=48), reduction)
            continue
        height, width = whole['img_shape']
        reduced = dict(img_path=str(tmp_path / name), height=height, width=width)
        reductions[name] = loader.load(reduced, reduction)
        assert reduced['ori_shape'] == (height, width), name
        assert reduced['img'].shape == (*reduced_shape(height, width, reductions[name]), 3), name
        expected = cv2.resize(whole['img'], reduced['img'].shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(reduced['img'].astype(int) - expected).mean() < 6, name
    assert len(reductions) > 30 and set(reductions.values()) == {1, reduction}
    for name in ('plain.jpg', 'exif6.jpg', 'grey.jpg', 'cmyk.jpg', 'progressive.jpg', 'UPPER.JPG', 'large.jpg'):
        assert reductions[name] == reduction, name


@given(st.tuples(*[st.integers(1, 6000)] * 2), st.tuples(*[st.integers(1, 700)] * 2))
def test_nothing_is_enlarged_for_a_reduction(size, result):
    reduction = largest_reduction(size, result)
    assert reduction in (1, *FLAGS)
    assert reduction == 1 or all(side / reduction >= goal for side, goal in zip(size, result))
    assert reduction == 8 or any(side / (2 * reduction) < goal for side, goal in zip(size, result))


@pytest.fixture(scope='module')
def large_image(tmp_path_factory):
    """A photo of COCO at 1603x1201 px as JPEG."""
    photo = next(iter(sorted(shared_path('data', 'coco-mini', 'val2017').glob('*.jpg'))))
    path = tmp_path_factory.mktemp('large') / 'large.jpg'
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(photo)), (1603, 1201), interpolation=cv2.INTER_CUBIC))
    return path


def sample(path, width=1603, height=1201):
    boxes = [[100, 200, 500, 700], [600, 100, 1500, 1100], [800, 600, 900, 800]]
    instances = [dict(bbox=box, bbox_label=label, ignore_flag=0) for label, box in enumerate(boxes)]
    sized = {} if width is None else dict(width=width, height=height)
    return dict(img_path=str(path), instances=instances, **sized)


def run(seed, results, reduce, size=(200, 150)):
    annotations = LoadAnnotations(with_bbox=True)
    crop = SSDCrop(size, mean=(127.5, 120, 110), loader=LOADER if reduce else None)
    np.random.seed(seed)
    for step in (annotations, crop) if reduce else (LoadImageFromFile(), annotations, crop):
        results = step(results)
    return results


def test_crops_are_those_of_whole_images(large_image, monkeypatch):
    loaded, load = [], ReducedLoader.load
    monkeypatch.setattr(ReducedLoader, 'load', lambda *args: loaded.append(args[2]) or load(*args))
    for seed in range(24):
        whole, reduced = run(seed, sample(large_image), False), run(seed, sample(large_image), True)
        for key in ('img_shape', 'ori_shape', 'scale_factor', 'flip'):
            assert reduced[key] == whole[key]
        assert np.array_equal(reduced['gt_bboxes'].tensor, whole['gt_bboxes'].tensor)
        assert np.array_equal(reduced['homography_matrix'], whole['homography_matrix'])
        # a whole image that is shrunk has aliases; without them both are the same
        blurred = [cv2.blur(results['img'], (7, 7)).astype(float) for results in (whole, reduced)]
        assert np.abs(blurred[0] - blurred[1]).mean() < 4
    assert set(loaded) == {2, 4, 8}


def test_a_file_of_another_size_is_decoded_whole(large_image):
    for size in ((1201, 1603), (3206, 2402), (None, None)):
        found = run(3, sample(large_image, *size), True)
        assert found['ori_shape'] == (1201, 1603) and found['img'].shape == (150, 200, 3)
    unknown, whole = run(3, sample(large_image, None), True), run(3, sample(large_image), False)
    assert np.array_equal(unknown['img'], whole['img'])


def test_an_image_that_cannot_be_read_may_be_left_out(tmp_path):
    crop = SSDCrop(8, loader=dict(type='LoadImageFromFile', ignore_empty=True))
    assert crop(dict(img_path=str(tmp_path / 'gone.jpg'), width=10, height=10)) is None
    assert crop(dict(img_path=str(tmp_path / 'gone.jpg'))) is None


@pytest.mark.parametrize(
    ('loader', 'message'),
    [
        (dict(type='mixdet.LoadCachedImage', cache=False), 'loader is a LoadCachedImage; only LoadImageFromFile can'),
        (dict(type='LoadImageFromFile', color_type='unchanged'), "only with imdecode_backend='cv2' and"),
        (dict(type='LoadImageFromFile', imdecode_backend='pillow'), "only with imdecode_backend='cv2' and"),
    ],
)
def test_other_loaders_are_refused(loader, message):
    with pytest.raises(UserError, match=re.escape(message)):
        SSDCrop(8, loader=loader)


def test_described():
    assert 'loader=LoadImageFromFile(' in repr(SSDCrop(8, loader=LOADER)) and repr(ReducedLoader(LOADER))
