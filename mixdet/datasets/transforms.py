"""TensorFlow's image resize."""

import numpy as np
from mmdet.datasets.transforms import Resize

from mixdet.registry import TRANSFORMS


def resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """``image`` (H, W, C) as ``tf.image.resize_bilinear`` of TensorFlow 1 has it, float32.

    A pixel of the result is taken at ``i * size / new_size``: there is no half-pixel shift as in OpenCV, and no
    rounding to whole grey values.
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
    """MMDetection's ``Resize`` to exactly ``scale`` (width, height), with TensorFlow's interpolation.

    For weights trained with the TF Object Detection API, whose inputs it reproduces.
    """

    def _resize_img(self, results: dict) -> None:
        width, height = results['scale']
        old_height, old_width = results['img'].shape[:2]
        results['img'] = resize_bilinear(results['img'], height, width)
        results['img_shape'] = (height, width)
        results['scale_factor'] = (width / old_width, height / old_height)
        results['keep_ratio'] = False
