"""A part of an image, which may reach beyond it, at another size."""

import math
from collections.abc import Sequence

import cv2
import numpy as np


def resized_part(
    image: np.ndarray, part: Sequence[int], size: tuple[int, int], fill: Sequence[float], reduction: int = 1
) -> np.ndarray:
    """``part`` of an image at the size (width, height): (height, width, C).

    Within the image the result is OpenCV's bilinear ``resize``; beside it, pixels are interpolated at 1/32 pixel.

    Args:
        image: (H, W, C) or (H, W).
        part: x1, y1, x2, y2 in px of the image, before its sides were reduced.
        size: of the result, (width, height).
        fill: the colour around the image.
        reduction: by how much the sides of ``image`` were divided.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = part
    if reduction == 1 and x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height:
        return cv2.resize(image[y1:y2, x1:x2], size)
    x, y = _Axis(x1 / reduction, x2 / reduction, width, size[0]), _Axis(y1 / reduction, y2 / reduction, height, size[1])
    view = image[y.view, x.view]
    if not view.size:
        return cv2.resize(np.full((1, 1, *image.shape[2:]), fill, image.dtype), size)
    # a pixel of the colour around the image, which is then repeated as the part's own borders are
    view = _bordered(view, y1 < 0, y.beyond, x1 < 0, x.beyond, fill)
    warped = cv2.warpAffine(
        view, np.array([[x.step, 0, x.first], [0, y.step, y.first]]), (x.end - x.begin, y.end - y.begin),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return _bordered(warped, y.begin, size[1] - y.end, x.begin, size[0] - x.end, fill)


class _Axis:
    """One axis of the warp of ``low``..``high`` to ``size`` pixels, of which the image covers 0..``side``.

    Attributes:
        view: the pixels of the image that are read.
        beyond: whether the part ends beyond the image.
        begin, end: the pixels of the result that show the image.
        first: the place of pixel ``begin`` in the view with a pixel around it.
        step: from one pixel of the result to the next.
    """

    def __init__(self, low: float, high: float, side: int, size: int) -> None:
        start, stop = max(math.floor(low), 0), max(min(math.ceil(high), side), 0)
        self.view, self.beyond = slice(start, stop), high > side
        self.step = (high - low) / size
        # the image shows in what lies between -1 and side
        self.begin = min(max(math.floor((-0.5 - low) / self.step - 0.5), 0), size)
        self.end = min(max(math.ceil((side + 0.5 - low) / self.step + 0.5), 0), size)
        self.first = low + (self.begin + 0.5) * self.step - 0.5 - start + (low < 0)


def _bordered(image: np.ndarray, top: int, bottom: int, left: int, right: int, fill: Sequence[float]) -> np.ndarray:
    """``image`` with so many rows and columns of the colour ``fill`` around it."""
    return cv2.copyMakeBorder(image, int(top), int(bottom), int(left), int(right), cv2.BORDER_CONSTANT, value=fill)
