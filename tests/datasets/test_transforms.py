import numpy as np
import pytest
from helpers import shared_path

from mixdet.datasets import TFResize
from mixdet.datasets.transforms import resize_bilinear


def test_equals_tensorflow_on_a_coco_image():
    reference = np.load(shared_path('reference', 'tf_ssdlite_mobilenet_v2_coco_000000397133.npz'))
    ours = resize_bilinear(reference['image_rgb'], 300, 300) / 127.5 - 1
    assert np.abs(ours - reference['pre'][0]).max() < 1e-5


def test_samples_without_a_half_pixel_shift():
    ramp = np.arange(8, dtype=np.uint8).reshape(1, 8, 1)
    assert resize_bilinear(ramp, 1, 4)[0, :, 0].tolist() == [0, 2, 4, 6]
    assert resize_bilinear(ramp, 1, 16)[0, :, 0].tolist() == [*np.arange(0, 7.5, 0.5), 7]  # the last pixel repeats


def test_transform_scales_boxes_with_the_image():
    image = np.zeros((40, 80, 3), np.uint8)
    results = dict(img=image, img_shape=(40, 80), gt_bboxes=np.array([[8.0, 4, 16, 20]], np.float32))
    results = TFResize(scale=(20, 20), keep_ratio=False)(results)
    assert results['img'].shape == (20, 20, 3) and results['img_shape'] == (20, 20)
    assert results['gt_bboxes'].tolist() == [[2, 2, 4, 10]]
    assert results['scale_factor'] == pytest.approx((0.25, 0.5))
