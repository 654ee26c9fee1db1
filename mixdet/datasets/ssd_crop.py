"""SSD's random expansion, crop, resizing and flip in one transform, which reads each pixel once."""

import bisect
from collections.abc import Sequence
from typing import NamedTuple, Optional, Union

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.datasets.transforms import RandomFlip
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks

from mixdet.datasets.reduced import ReducedLoader, largest_reduction
from mixdet.datasets.warping import resized_part
from mixdet.errors import UserError
from mixdet.registry import TRANSFORMS

TRIES = 50  # crops that MinIoURandomCrop proposes for an overlap that it drew
REFUSED = ('gt_seg_map', 'gt_keypoints', 'gt_instances_ids', 'proposals')
FLIPS = {'horizontal': 1, 'vertical': 0, 'diagonal': -1}  # OpenCV's codes


WANTED = {
    'scale': '(width, height) in pixels',
    'ratio_range': 'two numbers of 1 or more, the smaller first',
    'min_ious': 'overlaps from 0 to 1',
    'min_crop_size': 'a part of the side, more than 0 and at most 1',
}
Masks = Union[BitmapMasks, PolygonMasks]
Rectangle = tuple[int, int, int, int]  # x1, y1, x2, y2


class Geometry(NamedTuple):
    """What was drawn for an image.

    Attributes:
        offset: place (left, top) of the image on its canvas.
        canvas: size (width, height) of the canvas.
        patch: the part (x1, y1, x2, y2) of the canvas that is kept, in pixels.
        cropped: whether that part was drawn; then boxes with their centre outside it are dropped.
        direction: of the flip, or None.
    """

    offset: tuple[int, int]
    canvas: tuple[int, int]
    patch: Rectangle
    cropped: bool
    direction: Optional[str]


@TRANSFORMS.register_module()
class SSDCrop(BaseTransform):
    """MMDetection's ``Expand``, ``MinIoURandomCrop``, ``Resize`` and ``RandomFlip`` in one.

    All is drawn before a pixel is touched, from the same random numbers as those transforms draw: the same seed gives
    the same crop and boxes. Then the part of the image that is kept is resized into place. Where the crop lies in the
    image, the pixels are MMDetection's; beside the filled area they are interpolated at 1/32 pixel.

    Args:
        scale: size of the result, (width, height) or one number for both.
        ratio_range: of ``Expand``: sides of the canvas by those of the image; None leaves the step out.
        expand_prob: of ``Expand``, there called ``prob``.
        mean: of ``Expand``: the colour around the image, RGB.
        to_rgb: of ``Expand``: False if ``mean`` has the order of the image's channels.
        min_ious: of ``MinIoURandomCrop``; None leaves the step out.
        min_crop_size: of ``MinIoURandomCrop``.
        bbox_clip_border: clip boxes to the result.
        prob: of ``RandomFlip``.
        direction: of ``RandomFlip``.
        loader: config of ``LoadImageFromFile``, then left out before: large images are decoded at 1/2, 1/4 or 1/8 of
            their sides where the crop is shrunk at least so much anyway. The crop is drawn for the ``height`` and
            ``width`` of the annotations; a file of another size is decoded whole, and drawn for anew.

    Raises:
        UserError: if a parameter is out of range, or a sample has what cannot be transformed: segmentation maps,
            keypoints, proposals, boxes that are not horizontal, polygons (with ``ratio_range``), channels without a
            ``mean``.
    """

    def __init__(
        self,
        scale: Union[int, Sequence[int]],
        ratio_range: Optional[Sequence[float]] = (1, 4),
        expand_prob: float = 0.5,
        mean: Sequence[float] = (0, 0, 0),
        to_rgb: bool = True,
        min_ious: Optional[Sequence[float]] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size: float = 0.3,
        bbox_clip_border: bool = True,
        prob: Union[float, list[float]] = 0.5,
        direction: Union[str, list[str]] = 'horizontal',
        loader: Optional[dict] = None,
    ) -> None:
        size = (scale, scale) if isinstance(scale, int) else tuple(scale)
        _require(len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size), scale=scale)
        _require(ratio_range is None or 1 <= ratio_range[0] <= ratio_range[1], ratio_range=ratio_range)
        _require(min_ious is None or all(0 <= overlap <= 1 for overlap in min_ious), min_ious=min_ious)
        _require(0 < min_crop_size <= 1, min_crop_size=min_crop_size)
        self.scale = size[0], size[1]
        self.ratio_range = ratio_range
        self.expand_prob = expand_prob
        self.mean = tuple(mean)[::-1] if to_rgb else tuple(mean)
        self.modes = np.array([] if min_ious is None else [1, *min_ious, 0], float)
        self.min_crop_size = min_crop_size
        self.bbox_clip_border = bbox_clip_border
        RandomFlip(prob, direction)  # checks them
        directions = [direction] if isinstance(direction, str) else direction
        chances = prob if isinstance(prob, list) else [prob / len(directions)] * len(directions)
        self.directions = [*directions, None]
        self.chances = np.cumsum(chances).tolist()
        self.loader = None if loader is None else ReducedLoader(loader)

    def transform(self, results: dict) -> Optional[dict]:
        """Transform ``img`` (H, W, C) and the boxes, labels, ignore flags and masks that belong to it."""
        boxes = _corners(results.get('gt_bboxes'))
        if self.loader is None:
            geometry, reduction = self._draw(*results['img'].shape[:2], boxes), 1
        else:
            drawn = self._load(results, self.loader, boxes)
            if drawn is None:
                return None
            geometry, reduction = drawn
        image = results['img']
        self._check(results, 1 if image.ndim == 2 else image.shape[2])
        results['img'] = self._pixels(image, geometry, reduction)
        results['img_shape'] = self.scale[::-1]
        results['scale'], results['keep_ratio'] = self.scale, False
        results['scale_factor'] = tuple(np.divide(self.scale, _size(geometry.patch)).tolist())
        results['flip'], results['flip_direction'] = geometry.direction is not None, geometry.direction
        before = results.get('homography_matrix', np.eye(3, dtype=np.float32))
        results['homography_matrix'] = self._matrix(geometry, *results['scale_factor']) @ before
        if 'gt_bboxes' in results:
            self._annotations(results, boxes, geometry)
        return results

    def _load(self, results: dict, loader: ReducedLoader, boxes: np.ndarray) -> Optional[tuple[Geometry, int]]:
        """Set ``img`` and ``ori_shape``; returns what was drawn, and the reduction of the sides; None without image."""
        geometry, wanted = None, 1
        if results.get('height') and results.get('width'):
            geometry = self._draw(results['height'], results['width'], boxes)
            wanted = largest_reduction(_size(geometry.patch), self.scale)
        reduction = loader.load(results, wanted)
        if reduction is None:
            return None
        if geometry is None or results['ori_shape'] != (results['height'], results['width']):
            geometry = self._draw(*results['ori_shape'], boxes)
        return geometry, reduction

    def _check(self, results: dict, channels: int) -> None:
        refused = [key for key in REFUSED if results.get(key) is not None]
        if refused:
            raise UserError(
                f'SSDCrop does not transform {", ".join(refused)}; use Expand, MinIoURandomCrop, Resize ...'
            )
        if self.ratio_range and channels != len(self.mean):
            raise UserError(
                f'SSDCrop: mean has {len(self.mean)} numbers, {results.get("img_path", "the image")} has {channels} '
                'channels; give one for each, or ratio_range=None'
            )

    @cache_randomness
    def _draw(self, height: int, width: int, boxes: np.ndarray) -> Geometry:
        """Draw for an image with ``boxes`` (N, 4), in the order of MMDetection's transforms."""
        left = top = 0
        if self.ratio_range and np.random.uniform(0, 1) <= self.expand_prob:
            ratio = np.random.uniform(self.ratio_range[0], self.ratio_range[1])
            left = int(np.random.uniform(0, width * ratio - width))
            top = int(np.random.uniform(0, height * ratio - height))
            height, width = int(height * ratio), int(width * ratio)
        patch = self._draw_patch(height, width, _moved(boxes, left, top))
        direction = self.directions[bisect.bisect(self.chances, np.random.random_sample())]
        return Geometry((left, top), (width, height), patch or (0, 0, width, height), patch is not None, direction)

    def _draw_patch(self, height: int, width: int, boxes: np.ndarray) -> Optional[Rectangle]:
        """The crop of a canvas with ``boxes`` (N, 4), or None for all of it."""
        random, smallest = np.random.random_sample, self.min_crop_size
        low_width, low_height = smallest * width, smallest * height
        more_width, more_height = width - low_width, height - low_height
        areas = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).tolist()
        while len(self.modes):
            min_iou = float(np.random.choice(self.modes))
            if min_iou == 1:
                break
            # no crop outside these areas can overlap each box so much; most tries end here
            least, most = _possible_areas(areas, min_iou)
            for _ in range(TRIES):
                crop_width, crop_height = low_width + more_width * random(), low_height + more_height * random()
                if not 0.5 <= crop_height / crop_width <= 2:
                    continue
                x, y = random(), random()
                area = crop_width * crop_height
                if area + crop_width + crop_height + 1 < least or area - crop_width - crop_height > most:
                    continue
                # MMDetection draws from uniform(low=width - crop_width), whose high is 1
                left, top = width - crop_width, height - crop_height
                left += (1 - left) * x
                top += (1 - top) * y
                patch = int(left), int(top), int(left + crop_width), int(top + crop_height)
                if all(_size(patch)) and _acceptable(patch, boxes, min_iou):
                    return patch
        return None

    def _pixels(self, image: np.ndarray, geometry: Geometry, reduction: int) -> np.ndarray:
        """The image of the result, (height, width, C)."""
        part = _moved(np.array(geometry.patch), *(-shift for shift in geometry.offset)).tolist()
        fill = np.asarray(self.mean).astype(image.dtype).tolist()
        result = resized_part(image, part, self.scale, fill, reduction)
        return result if geometry.direction is None else cv2.flip(result, FLIPS[geometry.direction])

    def _matrix(self, geometry: Geometry, scale_x: float, scale_y: float) -> np.ndarray:
        """What maps a point (x, y, 1) of the image to the result, (3, 3) float32."""
        left, top = np.subtract(geometry.offset, geometry.patch[:2])
        matrix = np.array([[scale_x, 0, left * scale_x], [0, scale_y, top * scale_y], [0, 0, 1]], np.float32)
        for axis, directions in enumerate((('horizontal', 'diagonal'), ('vertical', 'diagonal'))):
            if geometry.direction in directions:
                matrix[axis] = np.eye(3)[2] * self.scale[axis] - matrix[axis]
        return matrix

    def _annotations(self, results: dict, boxes: np.ndarray, geometry: Geometry) -> None:
        """Transform boxes, in MMDetection's order of operations in float32, and what belongs to them."""
        width, height = self.scale
        patch, direction = geometry.patch, geometry.direction
        boxes = _moved(boxes, *geometry.offset)
        kept = _centred(boxes, patch) if geometry.cropped else np.ones(len(boxes), bool)
        boxes = _moved(boxes[kept], -patch[0], -patch[1])
        if self.bbox_clip_border and geometry.cropped:
            boxes = _clipped(boxes, *_size(patch))
        boxes *= np.array(results['scale_factor'] * 2, np.float32)
        if self.bbox_clip_border:
            boxes = _clipped(boxes, width, height)
        if direction in ('horizontal', 'diagonal'):
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        if direction in ('vertical', 'diagonal'):
            boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
        is_array = isinstance(results['gt_bboxes'], np.ndarray)
        results['gt_bboxes'] = boxes if is_array else HorizontalBoxes(torch.from_numpy(boxes), clone=False)
        for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
            if results.get(key) is not None:
                results[key] = results[key][kept]
        if results.get('gt_masks') is not None:
            results['gt_masks'] = self._masks(results['gt_masks'][np.flatnonzero(kept)], geometry)

    def _masks(self, masks: Masks, geometry: Geometry) -> Masks:
        """Instance masks of MMDetection, transformed by their own methods."""
        if self.ratio_range:
            if isinstance(masks, PolygonMasks):
                raise UserError('SSDCrop cannot expand polygons; set poly2mask=True in LoadAnnotations')
            (left, top), (width, height) = geometry.offset, geometry.canvas
            masks = masks.expand(height, width, top, left)
        if geometry.cropped:
            masks = masks.crop(np.array(geometry.patch))
        masks = masks.resize(self.scale[::-1])
        return masks if geometry.direction is None else masks.flip(geometry.direction)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({", ".join(f"{name}={value}" for name, value in vars(self).items())})'


def _require(fits: bool, **parameter: object) -> None:
    if not fits:
        ((name, value),) = parameter.items()
        raise UserError(f'SSDCrop: {name} is {value!r}; give {WANTED[name]}')


def _corners(boxes: Union[np.ndarray, HorizontalBoxes, None]) -> np.ndarray:
    """A copy of the boxes as (N, 4) float32; (0, 4) if there are none."""
    if boxes is None:
        return np.zeros((0, 4), np.float32)
    if not isinstance(boxes, (np.ndarray, HorizontalBoxes)):
        raise UserError(f'SSDCrop: gt_bboxes are {type(boxes).__name__}; only horizontal boxes can be cropped')
    return (boxes if isinstance(boxes, np.ndarray) else boxes.tensor.numpy()).astype(np.float32).reshape(-1, 4)


def _size(rectangle: Sequence[int]) -> tuple[int, int]:
    return rectangle[2] - rectangle[0], rectangle[3] - rectangle[1]


def _moved(boxes: np.ndarray, x: int, y: int) -> np.ndarray:
    return boxes + np.array([x, y, x, y], boxes.dtype)


def _clipped(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    return boxes.clip(0, np.array([width, height, width, height], boxes.dtype))


def _possible_areas(areas: list[float], min_iou: float) -> tuple[float, float]:
    """Bounds of a crop's area, if it is to overlap boxes of these areas by ``min_iou`` each, with room for rounding."""
    if not areas or min_iou <= 0:
        return 0, np.inf
    return max(areas) * min_iou * 0.999, min(areas) / min_iou * 1.001


def _acceptable(patch: Rectangle, boxes: np.ndarray, min_iou: float) -> bool:
    """Whether a crop overlaps each of ``boxes`` (N, 4) enough, in float32, and has the centre of one inside."""
    if not len(boxes):
        return True
    x1, y1, x2, y2 = boxes.T
    left, top, right, bottom = map(np.float32, patch)
    common = (np.minimum(x2, right) - np.maximum(x1, left)).clip(0)
    common *= (np.minimum(y2, bottom) - np.maximum(y1, top)).clip(0)
    union = (right - left) * (bottom - top) + (x2 - x1) * (y2 - y1) - common
    overlaps = common / np.maximum(union, np.float32(1e-6))
    return not float(overlaps.min()) < min_iou and bool(_centred(boxes, patch).any())


def _centred(boxes: np.ndarray, patch: Rectangle) -> np.ndarray:
    """Which of ``boxes`` (N, 4) have their centre in the crop."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres > patch[:2]) & (centres < patch[2:])).all(1)
