"""Pictures with boxes: an image's ground truth beside its detections, and training images as they were augmented."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Optional

import matplotlib
import mmcv
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mixdet.engine.atomic import atomic_path
from mixdet.evaluation.details import CONFUSED, FALSE_ALARM, FOUND, MISSED, Box, ImageErrors
from mixdet.report.figures import SERIES, short_name

# apart in hue and in lightness, so that colour-blind readers can tell them
COLORS = {FOUND: '#19b98a', CONFUSED: '#f5b400', MISSED: '#ff4d6d', FALSE_ALARM: '#b76bff'}
LABELLED, IGNORED = 'labelled', 'ignored'  # states of a box in a training image, which no detection was matched to
IGNORED_COLOR = '#adb5bd'
SIDE = 640  # px, the longer side of each panel
BARE_SIDE = 960  # px at most, of the images without boxes
FONT, LINE = 16, 3  # px, of a panel
GAP = 6
BARE_FOLDER = 'images'  # the pictures without their boxes, which the page draws itself


def draw_errors(image: ImageErrors, classes: Sequence[str]) -> Image.Image:
    """Draw ground truth on the left and detections on the right; missed boxes are dashed.

    Raises FileNotFoundError or ValueError if the image file is missing or cannot be read.
    """
    return _side_by_side(_read(image.path), image, classes)


def draw_boxes(picture: Image.Image, boxes: Sequence[Box], classes: Sequence[str]) -> Image.Image:
    """``picture``, its longer side ``SIDE`` px, with ``boxes``; missed and ignored ones are dashed."""
    scale = SIDE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    panel = picture.resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(panel)
    for box in sorted(boxes, key=lambda box: box.score or 0):  # the most confident on top
        _draw_box(draw, box, classes[box.label], scale, size)
    return panel


def save_pictures(images: Sequence[ImageErrors], classes: Sequence[str], folder: Path, prefix: str) -> list[dict]:
    """Draw ``images`` as ``<prefix>_1.jpg`` ... into ``folder``, and without boxes into its folder ``images``.

    Images whose file cannot be read are left out. Returns for each, in values that JSON can hold: the two files, the
    image and its size (width, height), F1, counts by state, and the boxes (see ``box_records``).
    """
    remove_pictures(folder, prefix)
    records: list[dict] = []
    for image in images:
        try:
            picture = _read(image.path)
        except (OSError, ValueError):
            continue
        name = f'{prefix}_{len(records) + 1}.jpg'
        _save(_side_by_side(picture, image, classes), folder / name)
        counts = {state: image.count(state) for state in COLORS}
        records.append(
            dict(
                save_bare(picture, folder, name),
                picture=name,
                image=image.path,
                f1=round(image.f1, 4),
                counts=counts,
                truth=box_records(image.truth, classes),
                detections=box_records(image.detections, classes),
            )
        )
    return records


def save_bare(picture: Image.Image, folder: Path, name: str) -> dict:
    """Save ``picture`` without boxes in ``folder``'s ``images``; returns that file and the size in px before."""
    (folder / BARE_FOLDER).mkdir(parents=True, exist_ok=True)
    bare = picture.copy()
    bare.thumbnail((BARE_SIDE, BARE_SIDE), Image.Resampling.LANCZOS)
    _save(bare, folder / BARE_FOLDER / name)
    return dict(bare=f'{BARE_FOLDER}/{name}', size=list(picture.size))


def remove_pictures(folder: Path, prefix: str) -> None:
    """Remove the pictures that an earlier ``save_pictures`` left."""
    for old in (*folder.glob(f'{prefix}_*.jpg'), *folder.glob(f'{BARE_FOLDER}/{prefix}_*.jpg')):
        if old.stem.removeprefix(f'{prefix}_').isdigit():  # not one that only begins alike
            old.unlink()


def box_records(boxes: Iterable[Box], classes: Sequence[str]) -> list[dict]:
    """Boxes in values that JSON can hold, in the order in which they are drawn: the most confident last."""
    return [
        dict(
            box=[round(value, 1) for value in box.corners],
            label=box.label,
            name=classes[box.label],
            state=box.state,
            **({} if box.score is None else dict(score=round(box.score, 4))),
        )
        for box in sorted(boxes, key=lambda box: box.score or 0)
    ]


def box_color(label: int, state: str) -> str:
    """The colour of a box: of its state, or of its class where there is no state to show."""
    if state == IGNORED:
        return IGNORED_COLOR
    return COLORS.get(state, SERIES[label % len(SERIES)])


def box_text(name: str, score: Optional[float]) -> str:
    """What a box is labelled with."""
    shown = short_name(name)
    return shown if score is None else f'{shown} {score:.2f}'


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_path(path) as partial:
        picture.save(partial, quality=85)


def _read(path: str) -> Image.Image:
    pixels = mmcv.imread(path, channel_order='rgb')  # as the network saw it, EXIF orientation included
    if pixels is None:
        raise ValueError(f'{path} cannot be read')
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3]))


def _side_by_side(picture: Image.Image, image: ImageErrors, classes: Sequence[str]) -> Image.Image:
    panels = [draw_boxes(picture, boxes, classes) for boxes in (image.truth, image.detections)]
    width, height = panels[0].size
    canvas = Image.new('RGB', (2 * width + GAP, height), 'white')
    canvas.paste(panels[0], (0, 0))
    canvas.paste(panels[1], (width + GAP, 0))
    return canvas


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, name: str, scale: float, size: tuple[int, int]) -> None:
    color = box_color(box.label, box.state)
    x1, y1, x2, y2 = (value * scale for value in box.corners)
    x1, x2 = (min(max(x, 0), size[0] - 1) for x in (x1, x2))
    y1, y2 = (min(max(y, 0), size[1] - 1) for y in (y1, y2))
    if box.state in (MISSED, IGNORED):
        for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
            _dashed(draw, start, end, color)
    else:
        draw.rectangle((x1, y1, x2, y2), outline=color, width=LINE)
    if box.state == FOUND and box.score is None and x2 - x1 < 40:
        return  # the names of many small boxes would hide the image
    text = box_text(name, box.score)
    font = _font()
    width, height = font.getlength(text) + 8, FONT + 4
    left = max(0, min(x1, size[0] - width))
    top = y1 - height if y1 >= height else y1
    draw.rectangle((left, top, left + width, top + height), fill=color)
    draw.text((left + 4, top + 1), text, fill='#10131a', font=font)


def _dashed(draw: ImageDraw.ImageDraw, start: tuple, end: tuple, color: str, dash: float = 9) -> None:
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    points = np.linspace(start, end, max(2, 2 * int(length / (2 * dash)) + 2))
    for a, b in zip(points[::2], points[1::2]):
        draw.line((*a, *b), fill=color, width=LINE)


@lru_cache
def _font() -> ImageFont.FreeTypeFont:
    """Matplotlib's own font, which is on every system and has the letters of most languages."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf')), FONT)
