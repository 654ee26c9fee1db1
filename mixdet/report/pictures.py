"""An image's ground truth beside its detections, coloured by how each box fared."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import mmcv
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mixdet.evaluation.details import CONFUSED, FALSE_ALARM, FOUND, MISSED, Box, ImageErrors
from mixdet.text import printable

# apart in hue and in lightness, so that colour-blind readers can tell them
COLORS = {FOUND: '#19b98a', CONFUSED: '#f5b400', MISSED: '#ff4d6d', FALSE_ALARM: '#b76bff'}
SIDE = 480  # px, the longer side of each of the two panels
GAP = 6


def draw_errors(image: ImageErrors, classes: Sequence[str]) -> Image.Image:
    """Draw ground truth on the left and detections on the right; missed boxes are dashed.

    Raises FileNotFoundError or ValueError if the image file is missing or cannot be read.
    """
    pixels = mmcv.imread(image.path, channel_order='rgb')  # as the network saw it, EXIF orientation included
    if pixels is None:
        raise ValueError(f'{image.path} cannot be read')
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    scale = SIDE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    canvas = Image.new('RGB', (2 * size[0] + GAP, size[1]), 'white')
    for left, boxes in ((0, image.truth), (size[0] + GAP, image.detections)):
        panel = picture.copy()
        draw = ImageDraw.Draw(panel)
        for box in sorted(boxes, key=lambda box: box.score or 0):  # the most confident on top
            _draw_box(draw, box, classes[box.label], scale, size)
        canvas.paste(panel, (left, 0))
    return canvas


def save_pictures(images: Sequence[ImageErrors], classes: Sequence[str], folder: Path, prefix: str) -> list[dict]:
    """Draw ``images`` as ``<prefix>_1.jpg`` ... into ``folder``; returns file, image, F1 and counts of each, for JSON.

    Images whose file cannot be read are left out.
    """
    records: list[dict] = []
    for image in images:
        try:
            picture = draw_errors(image, classes)
        except (OSError, ValueError):
            continue
        name = f'{prefix}_{len(records) + 1}.jpg'
        picture.save(folder / name, quality=82)
        counts = {state: image.count(state) for state in COLORS}
        records.append(dict(picture=name, image=image.path, f1=round(image.f1, 4), counts=counts))
    return records


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, name: str, scale: float, size: tuple[int, int]) -> None:
    color = COLORS[box.state]
    x1, y1, x2, y2 = (value * scale for value in box.corners)
    x1, x2 = (min(max(x, 0), size[0] - 1) for x in (x1, x2))
    y1, y2 = (min(max(y, 0), size[1] - 1) for y in (y1, y2))
    if box.state == MISSED:
        for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
            _dashed(draw, start, end, color)
    else:
        draw.rectangle((x1, y1, x2, y2), outline=color, width=2)
    if box.state == FOUND and box.score is None and x2 - x1 < 40:
        return  # the names of many small boxes would hide the image
    text = printable(name if box.score is None else f'{name} {box.score:.2f}')
    font = _font()
    width, height = font.getlength(text) + 6, 14
    left = max(0, min(x1, size[0] - width))
    top = y1 - height if y1 >= height else y1
    draw.rectangle((left, top, left + width, top + height), fill=color)
    draw.text((left + 3, top + 1), text, fill='#10131a', font=font)


def _dashed(draw: ImageDraw.ImageDraw, start: tuple, end: tuple, color: str, dash: float = 7) -> None:
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    points = np.linspace(start, end, max(2, 2 * int(length / (2 * dash)) + 2))
    for a, b in zip(points[::2], points[1::2]):
        draw.line((*a, *b), fill=color, width=2)


@lru_cache
def _font() -> ImageFont.FreeTypeFont:
    """Matplotlib's own font, which is on every system and has the letters of most languages."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf')), 11)
