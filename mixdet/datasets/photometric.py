"""SSD's photometric distortion with an 8-bit result."""

import cv2
import mmdet.datasets.transforms as upstream
import numpy as np

from mixdet.errors import UserError
from mixdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PhotoMetricDistortion(upstream.PhotoMetricDistortion):
    """MMDetection's ``PhotoMetricDistortion``, at half its time and with a result that stays uint8.

    Parameters, their draws and the order of the operations are MMDetection's; the same seed gives the same distortion.
    Its result, float32, is rounded and saturated to 0..255 at the end, as the authors of SSD did. An image that is not
    uint8 is left to MMDetection's transform.

    Args:
        saturate: False keeps what brightness and contrast put outside 0..255, in float32, as MMDetection does.
        kwargs: ``brightness_delta``, ``contrast_range``, ``saturation_range`` and ``hue_delta``.
    """

    def __init__(self, *args, saturate: bool = True, **kwargs) -> None:
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
                f"PhotoMetricDistortion: {results.get('img_path', 'an image')} has the shape {image.shape} and no three "
                "channels; load it with color_type='color', or leave the transform out"
            )
        if image.dtype != np.uint8:
            return super().transform(results)
        results['img'] = self._distorted(image, *self._random_flags())
        return results

    def _distorted(
        self, image: np.ndarray, contrast_last: int, brightness: int, contrast: int, saturation: int, hue: int, swap: int,
        delta: float, alpha: float, factor: float, degrees: float, channels: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """``image`` distorted by what ``_random_flags`` drew; MMDetection's mode 1 is contrast before the colours."""
        delta = delta if brightness else 0.0
        before, after = (alpha, 1.0) if contrast_last else (1.0, alpha)
        if not contrast:
            before = after = 1.0
        order = channels if swap else np.arange(3)
        # where a pixel turns negative, MMDetection's way to HSV and back alters it
        if self.saturate and not saturation and not hue and delta >= 0:
            gain = before * after
            return cv2.transform(image, np.insert(gain * np.eye(3)[order], 3, gain * delta, axis=1))
        pixels = image.astype(np.float32)
        pixels += np.float32(delta)
        pixels *= np.float32(before)
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)
        if saturation or hue:
            shift, scale = (degrees % 360 if hue else 0.0), (factor if saturation else 1.0)
            pixels = cv2.transform(pixels, np.array([[1, 0, 0, shift], [0, scale, 0, 0], [0, 0, 1, 0]]))
            if scale > 1:
                pixels = cv2.min(pixels, (np.inf, 1, np.inf, 0))
        pixels = cv2.cvtColor(pixels, cv2.COLOR_HSV2BGR)  # takes hues beyond 360, not below 0
        if not self.saturate:
            return cv2.transform(pixels, after * np.eye(3)[order])
        pixels = cv2.addWeighted(pixels, after, pixels, 0, 0, dtype=cv2.CV_8U)
        return cv2.transform(pixels, np.eye(3)[order]) if swap else pixels

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, saturate={self.saturate})'
