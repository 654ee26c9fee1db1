"""SSD's photometric distortion, faster than MMDetection's."""

from typing import NamedTuple

import cv2
import mmdet.datasets.transforms as upstream
import numpy as np

from mixdet.errors import UserError
from mixdet.registry import TRANSFORMS

STRIP = 2**14  # pixels that are worked on at a time, so that they stay in the processor's cache


class Drawn(NamedTuple):
    """What MMDetection's transform draws, in its order: which steps are taken, then by how much."""

    contrast_first: int
    brightness: int
    contrast: int
    saturation: int
    hue: int
    swap: int
    delta: float
    alpha: float
    factor: float
    degrees: float
    channels: np.ndarray


@TRANSFORMS.register_module()
class PhotoMetricDistortion(upstream.PhotoMetricDistortion):
    """MMDetection's ``PhotoMetricDistortion`` in fewer passes over the memory.

    Parameters, their draws and the order of the operations are MMDetection's; the same seed gives the same distortion,
    in float32 and beyond 0..255 where brightness and contrast lead there. An image that is not uint8 is left to
    MMDetection's transform.
    """

    def transform(self, results: dict) -> dict:
        """Distort ``img``, (H, W, 3) BGR.

        Raises:
            UserError: if the image is not a colour image.
        """
        image = results['img']
        if image.ndim != 3 or image.shape[2] != 3:
            raise UserError(
                f'PhotoMetricDistortion: {results.get("img_path", "an image")} has the shape {image.shape}, '
                "not three channels; load it with color_type='color', or leave the transform out"
            )
        if image.dtype != np.uint8:
            return super().transform(results)
        results['img'] = _distorted(image, Drawn(*self._random_flags()))
        return results


def _distorted(image: np.ndarray, drawn: Drawn) -> np.ndarray:
    """``image`` distorted, (H, W, 3) float32; in memory it lies as (3, H, W), which ``PackDetInputs`` wants."""
    height, width = image.shape[:2]
    rows = min(max(STRIP // width, 1), height)
    order = drawn.channels if drawn.swap else range(3)
    after = drawn.alpha if drawn.contrast and not drawn.contrast_first else 1.0
    planes = np.empty((3, height, width), np.float32)
    buffers = np.empty((2, rows, width, 3), np.float32)
    for top in range(0, height, rows):
        strip = image[top : top + rows]
        pixels = _recoloured(strip, drawn, *buffers[:, : len(strip)])
        target = planes[:, top : top + rows]
        channels = [target[0]] * 3
        for plane, channel in zip(target, order):
            channels[channel] = plane
        cv2.split(pixels, channels)
        if after != 1:
            target *= np.float32(after)
    return planes.transpose(1, 2, 0)


def _recoloured(image: np.ndarray, drawn: Drawn, pixels: np.ndarray, other: np.ndarray) -> np.ndarray:
    """``image`` (H, W, 3) with all that is drawn but a contrast at the end, in one of two buffers of its shape."""
    delta = drawn.delta if drawn.brightness else 0.0
    np.copyto(pixels, image)
    if delta:
        pixels += np.float32(delta)
    if drawn.contrast and drawn.contrast_first:
        pixels *= np.float32(drawn.alpha)
    # without saturation and hue, MMDetection's way to HSV and back alters only pixels that are negative
    if not drawn.saturation and not drawn.hue and delta >= 0:
        return pixels
    cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV, dst=other)
    if drawn.saturation or drawn.hue:
        degrees = drawn.degrees % 360 if drawn.hue else 0.0
        factor = drawn.factor if drawn.saturation else 1.0
        pixels, other = other, pixels
        cv2.transform(pixels, np.array([[1, 0, 0, degrees], [0, factor, 0, 0], [0, 0, 1, 0]]), dst=other)
        if factor > 1:
            cv2.min(other, (np.inf, 1, np.inf, 0), dst=other)
    cv2.cvtColor(other, cv2.COLOR_HSV2BGR, dst=pixels)  # takes hues beyond 360, not below 0
    return pixels
