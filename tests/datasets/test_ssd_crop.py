"""``SSDCrop`` against MMDetection's ``Expand``, ``MinIoURandomCrop``, ``Resize`` and ``RandomFlip``, seed by seed."""

import json
import re

import cv2
import numpy as np
import pytest
import torch
from helpers import shared_path
from hypothesis import given
from hypothesis import strategies as st
from mmcv.transforms.utils import cache_random_params
from mmdet.datasets.transforms import Expand, MinIoURandomCrop, PackDetInputs, RandomFlip, Resize
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks

from mixdet.datasets import SSDCrop
from mixdet.datasets.ssd_crop import _acceptable, _possible_areas
from mixdet.errors import UserError
from mixdet.registry import TRANSFORMS

GREY = [127.5, 120, 110]
OVERLAPS = (0.1, 0.3, 0.5, 0.7, 0.9)
COMPARED = ('img_shape', 'scale', 'scale_factor', 'keep_ratio', 'flip', 'flip_direction')


def photo(height: int, width: int) -> np.ndarray:
    """A noisy image without sharp edges, uint8 BGR."""
    noise = np.random.default_rng(height + width).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (5, 5), 0)


def sample(boxes, height=60, width=90, **more) -> dict:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return dict(
        img=photo(height, width),
        img_shape=(height, width),
        gt_bboxes=HorizontalBoxes(torch.from_numpy(boxes.copy())),
        gt_bboxes_labels=np.arange(len(boxes)),
        gt_ignore_flags=np.arange(len(boxes)) % 3 == 1,
        **more,
    )


def theirs(results: dict, size=(48, 40), expand=True, crop=True, **flip) -> dict:
    flip = flip or dict(prob=0.5)
    steps = [
        *([Expand(GREY, True, (1, 4))] if expand else []),
        *([MinIoURandomCrop(OVERLAPS, 0.3)] if crop else []),
        Resize(size, keep_ratio=False),
        RandomFlip(**flip),
    ]
    for step in steps:
        results = step(results)
    return results


def ours(size=(48, 40), expand=True, crop=True, **flip) -> SSDCrop:
    return SSDCrop(size, (1, 4) if expand else None, mean=GREY, min_ious=OVERLAPS if crop else None, **flip)


def compare(make, seeds, **options) -> set:
    """The kinds of samples seen; each must come out as MMDetection's, with the generator in the same state."""
    transform, kinds = ours(**options), set()
    for seed in seeds:
        np.random.seed(seed)
        expected, following = theirs(make(seed), **options), np.random.random_sample()
        np.random.seed(seed)
        found = transform(make(seed))
        assert np.random.random_sample() == following
        assert {key: found[key] for key in COMPARED} == {key: expected[key] for key in COMPARED}
        assert torch.equal(found['gt_bboxes'].tensor, expected['gt_bboxes'].tensor)
        assert found['gt_bboxes_labels'].tolist() == expected['gt_bboxes_labels'].tolist()
        assert found['gt_ignore_flags'].tolist() == expected['gt_ignore_flags'].tolist()
        difference = np.abs(found['img'].astype(int) - expected['img'])
        assert difference.mean() < 0.5 and difference.max() <= 8  # 255 / 32
        if 'gt_masks' in expected:
            assert np.array_equal(found['gt_masks'].masks, expected['gt_masks'].masks)
        kinds.add((bool(difference.any()), found['flip'], len(found['gt_bboxes']) < len(make(seed)['gt_bboxes'])))
    return kinds


def some_boxes(seed: int) -> np.ndarray:
    corners = np.random.default_rng(seed).uniform(0, (90, 60), (seed % 7, 2, 2))
    return np.concatenate([corners.min(1), corners.max(1)], 1)


def test_equals_mmdetection_seed_by_seed():
    kinds = compare(lambda seed: sample(some_boxes(seed)), range(30))
    assert {flip for _, flip, _ in kinds} == {dropped for *_, dropped in kinds} == {exact for exact, *_ in kinds}


def test_without_the_filled_area_pixels_are_equal():
    for seed in range(10):
        np.random.seed(seed)
        expected = theirs(sample(some_boxes(seed)), expand=False)
        np.random.seed(seed)
        assert np.array_equal(ours(expand=False)(sample(some_boxes(seed)))['img'], expected['img'])


def test_equals_mmdetection_on_boxes_of_coco():
    folder = shared_path('data', 'coco-mini')
    data = json.loads((folder / 'annotations' / 'instances_train2017.json').read_text())
    made = {}

    def make(seed):
        image = data['images'][seed % len(data['images'])]
        if image['id'] not in made:
            pixels = cv2.resize(cv2.imread(str(folder / 'train2017' / image['file_name'])), None, fx=0.5, fy=0.5)
            boxes = [entry['bbox'] for entry in data['annotations'] if entry['image_id'] == image['id']]
            made[image['id']] = pixels, [(x / 2, y / 2, (x + w) / 2, (y + h) / 2) for x, y, w, h in boxes]
        pixels, boxes = made[image['id']]
        return dict(sample(boxes), img=pixels.copy(), img_shape=pixels.shape[:2])

    assert len(compare(make, range(12), size=(160, 160))) > 2


def test_draws_on_boxes_of_coco_are_mmdetections():
    """Many draws, on images so small that MMDetection's transforms are quick; another test looks at the pixels."""
    data = json.loads(shared_path('data', 'coco-mini', 'annotations', 'instances_train2017.json').read_text())
    boxes = {image['id']: [] for image in data['images']}
    for entry in data['annotations']:
        x, y, w, h = entry['bbox']
        boxes[entry['image_id']].append((x / 8, y / 8, (x + w) / 8, (y + h) / 8))

    def make(seed):
        image = data['images'][seed % len(data['images'])]
        height, width = image['height'] // 8, image['width'] // 8
        return dict(sample(boxes[image['id']], height, width), img=np.zeros((height, width, 3), np.uint8))

    transform, kept = ours(size=(8, 8)), 0
    for seed in range(400):
        np.random.seed(seed)
        expected, following = theirs(make(seed), size=(8, 8)), np.random.random_sample()
        np.random.seed(seed)
        found = transform(make(seed))
        assert np.random.random_sample() == following
        assert {key: found[key] for key in COMPARED} == {key: expected[key] for key in COMPARED}
        assert torch.equal(found['gt_bboxes'].tensor, expected['gt_bboxes'].tensor)
        kept += len(found['gt_bboxes'])
    assert kept > 1000


@pytest.mark.parametrize(
    'options',
    [
        dict(expand=False),
        dict(crop=False),
        dict(expand=False, crop=False),
        dict(prob=[0.3, 0.3, 0.3], direction=['horizontal', 'vertical', 'diagonal']),
        dict(prob=1.0, direction='diagonal'),
        dict(prob=0.0),
        dict(size=(200, 30)),
        dict(size=(600, 500)),
    ],
)
def test_each_step_can_be_set_or_left_out(options):
    compare(lambda seed: sample(some_boxes(seed)), range(6), **options)


@pytest.mark.parametrize('size', [(1, 1), (1, 70), (70, 1), (2, 2), (3, 400)])
def test_odd_sizes(size):
    height, width = size
    compare(lambda seed: sample([(0, 0, width, height)], height, width), range(6))


@pytest.mark.parametrize(
    'boxes', [[], [(0, 0, 90, 60)], [(80, 50, 90, 60)] * 2, [(10, 10, 10, 30)], [(-20, -5, 30, 20), (70, 40, 140, 99)]]
)
def test_unusual_boxes(boxes):
    """None, all of the image, two at the border, one without an area, and beyond the image."""
    compare(lambda seed: sample(boxes), range(6))


@pytest.mark.parametrize('count', [0, 3])
def test_masks_follow(count):
    masks = np.random.default_rng(0).integers(0, 2, (count, 60, 90), np.uint8)
    boxes = [(5, 5, 40, 50), (30, 10, 80, 40), (50, 30, 89, 59)][:count]
    compare(lambda seed: sample(boxes, gt_masks=BitmapMasks(masks.copy(), 60, 90)), range(6))


def test_polygons_follow_where_nothing_is_expanded():
    def make():
        polygons = [[np.array([5.0, 5, 40, 5, 40, 50])], [np.array([30.0, 10, 80, 10, 80, 40])]]
        return sample([(5, 5, 40, 50), (30, 10, 80, 40)], gt_masks=PolygonMasks(polygons, 60, 90))

    np.random.seed(1)
    expected = theirs(make(), expand=False, crop=False)['gt_masks'].masks
    np.random.seed(1)
    found = ours(expand=False, crop=False)(make())['gt_masks'].masks
    assert all(np.array_equal(a, b) for one, other in zip(found, expected) for a, b in zip(one, other))
    with pytest.raises(UserError, match='cannot expand polygons; set poly2mask=True'):
        ours()(make())


@pytest.mark.parametrize('seed', range(8))
def test_boxes_as_array_stay_one(seed):
    boxes = np.array([(5, 5, 40, 50), (30, 10, 80, 40)], np.float32)
    np.random.seed(seed)
    expected = ours()(sample(boxes))['gt_bboxes'].tensor.tolist()
    np.random.seed(seed)
    given_boxes = boxes.copy()
    found = ours()(dict(sample(boxes), gt_bboxes=given_boxes))['gt_bboxes']
    assert isinstance(found, np.ndarray) and found.tolist() == expected
    assert np.array_equal(given_boxes, boxes)


def test_boxes_may_reach_beyond_the_result():
    unclipped = SSDCrop(10, None, min_ious=None, prob=0.0, bbox_clip_border=False)
    found = unclipped(sample([(-90, 0, 180, 60)]))['gt_bboxes'].tensor
    assert found.tolist() == [[-10, 0, 20, 10]]


def test_an_image_alone():
    np.random.seed(0)
    result = ours()(dict(img=photo(60, 90)))
    assert result['img'].shape == (40, 48, 3) and 'gt_bboxes' not in result


@pytest.mark.parametrize('dtype', [np.float32, np.uint16])
def test_other_types_of_pixels_stay(dtype):
    for seed in range(12):
        np.random.seed(seed)
        expected = theirs(dict(sample([]), img=photo(60, 90).astype(dtype)))['img']
        np.random.seed(seed)
        found = ours()(dict(sample([]), img=photo(60, 90).astype(dtype)))['img']
        assert found.dtype == dtype and np.abs(found.astype(float) - expected).mean() < 0.5


@pytest.mark.parametrize('seed', range(6))
def test_the_matrix_maps_boxes(seed):
    transform = SSDCrop((48, 40), (1, 4), mean=GREY, prob=1.0, direction='diagonal', bbox_clip_border=False)
    box, before = np.array([[20, 10, 50, 40]], np.float32), np.diag([2, 2, 1]).astype(np.float32)
    np.random.seed(seed)
    results = transform(dict(sample(box * 2), homography_matrix=before))
    x2, y2, x1, y1 = (results['homography_matrix'] @ np.array([[20, 50], [10, 40], [1, 1]]))[:2].T.ravel()
    assert np.allclose(results['gt_bboxes'].tensor, [[x1, y1, x2, y2]], atol=1e-3)


def test_drawn_once_for_several_images():
    transform = ours()
    with cache_random_params(transform):
        first, second = (transform(sample([(5, 5, 40, 50)]))['img'] for _ in range(2))
    assert np.array_equal(first, second)


@given(
    st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 20)] * 2),
    st.lists(st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 20)] * 2), min_size=1, max_size=4),
    st.sampled_from(OVERLAPS),
)
def test_no_acceptable_crop_is_outside_the_possible_areas(crop, boxes, overlap):
    x, y, w, h = crop
    corners = np.array([(left, top, left + width, top + height) for left, top, width, height in boxes], np.float32)
    least, most = _possible_areas([width * height for *_, width, height in boxes], overlap)
    if _acceptable((x, y, x + w, y + h), corners, overlap):
        assert least <= w * h <= most


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(scale=0), 'scale is 0; give (width, height) in pixels'),
        (dict(scale=(3, 2.5)), 'scale is (3, 2.5)'),
        (dict(scale=8, ratio_range=(0.5, 2)), 'ratio_range is (0.5, 2); give two numbers of 1 or more'),
        (dict(scale=8, ratio_range=(3, 2)), 'ratio_range is (3, 2)'),
        (dict(scale=8, min_ious=(0.1, 30)), 'min_ious is (0.1, 30); give overlaps from 0 to 1'),
        (dict(scale=8, min_crop_size=0), 'min_crop_size is 0; give a part of the side'),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        SSDCrop(**arguments)


@pytest.mark.parametrize('key', ['gt_seg_map', 'gt_keypoints', 'gt_instances_ids', 'proposals'])
def test_what_cannot_follow_is_refused_by_name(key):
    with pytest.raises(UserError, match=f'does not transform {key}'):
        ours()(sample([], **{key: np.zeros((1, 4))}))


def test_other_boxes_and_channels_are_refused():
    with pytest.raises(UserError, match='gt_bboxes are Tensor; only horizontal boxes'):
        ours()(dict(sample([]), gt_bboxes=torch.zeros(1, 5)))
    with pytest.raises(UserError, match='mean has 3 numbers, a.png has 1 channels; give one for each'):
        ours()(dict(sample([]), img=photo(9, 9)[..., 0], img_path='a.png'))


@pytest.mark.parametrize('seed', range(12))
def test_grey_images(seed):
    np.random.seed(seed)
    result = SSDCrop((48, 40), mean=[127])(dict(sample([(5, 5, 40, 50)]), img=photo(60, 90)[..., 0]))
    assert result['img'].shape == (40, 48)
    assert PackDetInputs(())(result)['inputs'].shape == (1, 40, 48)


def test_registered_and_described():
    transform = TRANSFORMS.build(dict(type='mixdet.SSDCrop', scale=8, min_crop_size=0.25))
    assert isinstance(transform, SSDCrop) and transform.scale == (8, 8)
    assert 'min_crop_size=0.25' in repr(transform) and "directions=['horizontal', None]" in repr(transform)
