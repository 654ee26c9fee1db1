"""TensorFlow's image resize."""

import numpy as np
from mmdet.datasets.transforms import Resize

from mixdet.registry import TRANSFORMS


def resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """``image`` (H, W, C) resized as TensorFlow 1's ``tf.image.resize_bilinear`` does, float32 (height, width, C).

    Pixel i of the result is sampled at ``i * size / new_size``: without OpenCV's half-pixel shift, and without
    rounding to integers.
    """
    for axis, size in enumerate((height, width)):
        old = image.shape[axis]
        position = np.arange(size, dtype=np.float32) * np.float32(old / size)
        low = np.minimum(position.astype(np.int64), old - 1)
        high = np.minimum(low + 1, old - 1)
        share = (position - low).reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
        first = np.take(image, low, axis).astype(np.float32)
        image = first + (np.take(image, high, axis).astype(np.float32) - first) * share
    return image


@TRANSFORMS.register_module()
class TFResize(Resize):
    """MMDetection's ``Resize`` to exactly ``scale`` (width, height) px, with TensorFlow's interpolation.

    Reproduces the inputs of weights trained with the TF Object Detection API.
    """

    def _resize_img(self, results: dict) -> None:
        width, height = results['scale']
        old_height, old_width = results['img'].shape[:2]
        results['img'] = resize_bilinear(results['img'], height, width)
        results['img_shape'] = (height, width)
        results['scale_factor'] = (width / old_width, height / old_height)
        results['keep_ratio'] = False
