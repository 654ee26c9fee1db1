"""Decoding images at a half, a quarter or an eighth of their sides, which is fast for large JPEG files."""

import contextlib
from collections.abc import Sequence
from typing import Optional

import cv2
from mmcv.transforms import LoadImageFromFile

from mixdet.errors import UserError
from mixdet.registry import TRANSFORMS

# by what the sides are divided: OpenCV's flag of the decoding
FLAGS = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
JPEG = ('.jpg', '.jpeg', '.jpe', '.jfif')


def largest_reduction(size: Sequence[int], result: Sequence[int]) -> int:
    """The largest of 8, 4, 2 and 1 by which an image can be reduced without enlarging what is cut out of it.

    Args:
        size: (width, height) of what is cut out, in px of the image.
        result: (width, height) that this will have.
    """
    return next((n for n in FLAGS if all(side >= n * goal for side, goal in zip(size, result))), 1)


def reduced_shape(height: int, width: int, reduction: int) -> tuple[int, int]:
    """What (height, width) becomes, by libjpeg's rounding."""
    return -(-height // reduction), -(-width // reduction)


class ReducedLoader:
    """Decodes the images of a data set whole or reduced.

    Args:
        loader: config of ``LoadImageFromFile``.

    Raises:
        UserError: if it is another transform, or does not decode colours with OpenCV, which alone reduces.
    """

    def __init__(self, loader: dict) -> None:
        whole = TRANSFORMS.build(loader)
        if type(whole) is not LoadImageFromFile:
            raise UserError(f'SSDCrop: loader is a {type(whole).__name__}; only LoadImageFromFile can reduce images')
        if whole.imdecode_backend != 'cv2' or whole.color_type != 'color':
            raise UserError("SSDCrop: loader reduces only with imdecode_backend='cv2' and color_type='color'")
        self.loader = whole
        self._loaders = {n: TRANSFORMS.build({**loader, 'color_type': flag}) for n, flag in FLAGS.items()}

    def load(self, results: dict, reduction: int = 1) -> Optional[int]:
        """Decode the image of ``results`` into ``img``; ``ori_shape`` is its shape before it was reduced.

        Args:
            results: with ``img_path``, and with the ``height`` and ``width`` of the image if it is to be reduced.
            reduction: by what to divide the sides: 1, 2, 4 or 8.

        Returns:
            By what they were divided: 1 if the file is no JPEG, which alone is decoded faster, or has another size;
            None if there is no image and the loader passes over that.
        """
        if reduction > 1 and results['img_path'].lower().endswith(JPEG):
            shape = results['height'], results['width']
            with contextlib.suppress(Exception):  # decoders fail in many ways; the whole image tells how
                loaded = self._loaders[reduction](dict(results))
                if loaded is not None and loaded['img'].shape[:2] == reduced_shape(*shape, reduction):
                    results.update(loaded, ori_shape=shape)
                    return reduction
        return None if self.loader(results) is None else 1

    def __repr__(self) -> str:
        return repr(self.loader)
