"""Boxes, masks and names of classes drawn into an image."""

import colorsys
import contextlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer
from PIL import Image, ImageDraw, ImageFont

from mixdet.text import plot_text, printable

GOLDEN = 0.618034  # hues this far apart stay distinct, however many classes there are
MASK = 0.45  # opacity


def draw_instances(
    image: np.ndarray, instances: InstanceData, classes: Sequence[str], score_thr: float = 0.0, bgr: bool = False
) -> np.ndarray:
    """A copy of ``image`` (H, W, 3), uint8, with ``instances`` drawn in, the best on top.

    Args:
        image: the image, RGB.
        instances: ``bboxes`` (n, 4) px and ``labels``, and where they are known ``scores`` and ``masks`` (n, H, W).
        classes: names.
        score_thr: lowest score that is drawn.
        bgr: the image is BGR.
    """
    labels = np.asarray(instances.labels.cpu(), int)
    scores = np.asarray(instances.scores.cpu()) if 'scores' in instances else np.ones(len(labels))
    boxes = np.asarray(getattr(instances.bboxes, 'tensor', instances.bboxes).cpu(), float).reshape(-1, 4)
    order = [i for i in np.argsort(scores, kind='stable') if scores[i] >= score_thr]
    colors = {i: class_color(int(labels[i]))[:: -1 if bgr else 1] for i in order}
    if 'masks' in instances:
        image = _draw_masks(image, _as_arrays(instances.masks), colors)
    picture = Image.fromarray(np.ascontiguousarray(image))  # a copy
    draw = ImageDraw.Draw(picture)
    side = min(picture.size)
    width, font = max(1, round(side / 250)), _font(max(11, round(side / 45)))
    limits = np.array([*picture.size, *picture.size]) - 1
    corners = [tuple(np.clip(boxes[i], 0, limits).tolist()) for i in order]
    for i, box in zip(order, corners):
        draw.rectangle(_ordered(box), outline=colors[i], width=width)
    for i, box in zip(order, corners):
        name = printable(classes[labels[i]]) if labels[i] < len(classes) else str(labels[i])
        _draw_name(draw, f'{name} {scores[i]:.2f}' if 'scores' in instances else name, box, colors[i], font)
    return np.asarray(picture)


@contextlib.contextmanager
def literal_names(visualizer: Visualizer) -> Iterator[Visualizer]:
    """``visualizer``, an MMDetection one, with its classes' names so that Matplotlib takes none for TeX."""
    meta = getattr(visualizer, 'dataset_meta', None) or {}
    if not meta.get('classes'):
        yield visualizer
        return
    visualizer.dataset_meta = {**meta, 'classes': tuple(map(plot_text, meta['classes']))}
    try:
        yield visualizer
    finally:
        visualizer.dataset_meta = meta


def class_color(label: int) -> tuple[int, int, int]:
    """The colour of a class, RGB."""
    red, green, blue = colorsys.hsv_to_rgb((0.33 + label * GOLDEN) % 1, 0.75 if label % 2 else 0.95, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _draw_name(draw: ImageDraw.ImageDraw, text: str, box: tuple, color: tuple, font: ImageFont.FreeTypeFont) -> None:
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = max(0, min(box[0], draw.im.size[0] - width))
    y = box[1] - height if box[1] >= height else box[1]  # above the box, or in it at the upper edge of the image
    draw.rectangle((x, y, x + width, y + height), fill=color)
    light = color[0] + 2 * color[1] + color[2] > 500  # red and blue alike, for either order
    draw.text((x + 2 - left, y + 2 - top), text, fill='black' if light else 'white', font=font)


def _draw_masks(image: np.ndarray, masks: np.ndarray, colors: dict[int, tuple[int, ...]]) -> np.ndarray:
    image = image.copy()
    for i, color in colors.items():
        if masks[i].shape == image.shape[:2]:
            inside = masks[i].astype(bool)
            image[inside] = (1 - MASK) * image[inside] + MASK * np.array(color)
    return image


def _ordered(box: tuple) -> tuple:
    x1, y1, x2, y2 = box
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _as_arrays(masks: Any) -> np.ndarray:
    """MMDetection's masks, or a tensor of them, as (n, H, W)."""
    return masks.to_ndarray() if hasattr(masks, 'to_ndarray') else np.asarray(masks.cpu())


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own font, which is on every system and has the letters of most languages."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf')), size)
