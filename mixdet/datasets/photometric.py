"""SSD's photometric distortion with an 8-bit result."""

from typing import Any, NamedTuple

import cv2
import mmdet.datasets.transforms as upstream
import numpy as np

from mixdet.errors import UserError
from mixdet.registry import TRANSFORMS

STRIP = 2**16  # pixels that are worked on at a time: larger buffers go back to the system, which clears them anew


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
    """MMDetection's ``PhotoMetricDistortion`` with a result that stays uint8.

    Parameters, their draws and the order of the operations are MMDetection's; the same seed gives the same distortion.
    Its result, float32, is rounded and saturated to 0..255 at the end, as the authors of SSD did. An image that is not
    uint8 is left to MMDetection's transform.

    Args:
        saturate: False keeps what brightness and contrast put outside 0..255, in float32, as MMDetection does.
        kwargs: ``brightness_delta``, ``contrast_range``, ``saturation_range`` and ``hue_delta``.
    """

    def __init__(self, *args: Any, saturate: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.saturate = saturate

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
        results['img'] = self._distorted(image, Drawn(*self._random_flags()))
        return results

    def _distorted(self, image: np.ndarray, drawn: Drawn) -> np.ndarray:
        """``image`` distorted, (H, W, 3); it lies in memory as (3, H, W), the order that ``PackDetInputs`` wants."""
        order = drawn.channels if drawn.swap else range(3)
        planes = np.empty((3, *image.shape[:2]), np.uint8 if self.saturate else np.float32)
        rows = max(STRIP // image.shape[1], 1)
        for top in range(0, len(image), rows):
            channels = cv2.split(self._recoloured(image[top : top + rows], drawn))
            for plane, channel in zip(planes, order):
                plane[top : top + rows] = channels[channel]
        return planes.transpose(1, 2, 0)

    def _recoloured(self, image: np.ndarray, drawn: Drawn) -> np.ndarray:
        """``image`` (H, W, 3) with other brightness, contrast, saturation and hue."""
        delta = drawn.delta if drawn.brightness else 0.0
        contrast = drawn.alpha if drawn.contrast else 1.0
        before, after = (contrast, 1.0) if drawn.contrast_first else (1.0, contrast)
        # where a pixel turns negative, MMDetection's way to HSV and back alters it
        if self.saturate and not drawn.saturation and not drawn.hue and delta >= 0:
            return cv2.transform(image, np.insert(contrast * np.eye(3), 3, contrast * delta, axis=1))
        pixels = image.astype(np.float32)
        if delta:
            pixels += np.float32(delta)
        if before != 1:
            pixels *= np.float32(before)
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)
        if drawn.saturation or drawn.hue:
            degrees = drawn.degrees % 360 if drawn.hue else 0.0
            factor = drawn.factor if drawn.saturation else 1.0
            pixels = cv2.transform(pixels, np.array([[1, 0, 0, degrees], [0, factor, 0, 0], [0, 0, 1, 0]]))
            if factor > 1:
                pixels = cv2.min(pixels, (np.inf, 1, np.inf, 0))
        pixels = cv2.cvtColor(pixels, cv2.COLOR_HSV2BGR)  # takes hues beyond 360, not below 0
        return cv2.addWeighted(pixels, after, pixels, 0, 0, dtype=cv2.CV_8U if self.saturate else cv2.CV_32F)

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, saturate={self.saturate})'
