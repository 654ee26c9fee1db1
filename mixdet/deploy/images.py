"""Finding a user's images and videos, and reading images."""

import glob
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Optional, Union

import cv2
import numpy as np
import PIL.Image

from mixdet.datasets.images import pillow_opinion
from mixdet.engine.outputs import real_path
from mixdet.errors import UserError

# what a folder is searched for: read_image tells which of them this OpenCV can decode, and names the others
IMAGES = (
    '.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.apng', '.bmp', '.dib', '.webp', '.tif', '.tiff', '.gif', '.avif',
    '.jp2', '.j2k', '.pbm', '.pgm', '.ppm', '.pnm', '.pam', '.pfm', '.ras', '.sr', '.hdr', '.pic', '.exr', '.tga',
    '.pcx', '.ico', '.heic', '.heif', '.jxl', '.dds', '.sgi', '.psd',
)  # fmt: skip
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')
MAX_PIXELS = 64_000_000  # of an image that is decoded in its own size
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
JPEG_START = b'\xff\xd8\xff'


def read_image(path: Union[str, Path]) -> np.ndarray:
    """The image as (H, W, 3) uint8 BGR, rotated by its EXIF orientation, as the training pipeline reads it.

    Greyscale becomes three equal channels, an alpha channel is dropped, 16 bits are scaled to 8.

    Raises:
        UserError: if the file does not exist or cannot be decoded as an image.
    """
    return _decode(Path(path), _content(Path(path)))


def read_reduced(path: Path, max_pixels: Optional[int] = None) -> tuple[np.ndarray, tuple[int, int]]:
    """The image as ``read_image`` reads it, and its width and height in px.

    One of more than ``max_pixels``, by default ``MAX_PIXELS``, is reduced to a half, a quarter or an eighth of its
    sides; of a JPEG no more is decoded than that. Raises as ``read_image``.
    """
    content, max_pixels = _content(path), max_pixels or MAX_PIXELS
    if content.startswith(JPEG_START):
        width, height = stated = _stated_size(content)
        step = _step(width * height, max_pixels)
        image = _decode(path, content, step)
        if step > 1:
            turned = (image.shape[1] > image.shape[0]) != (width > height)  # by EXIF
            return image, stated[::-1] if turned else stated
    else:
        image = _decode(path, content)
    height, width = image.shape[:2]
    step = _step(width * height, max_pixels)
    if step > 1:
        size = max(1, width // step), max(1, height // step)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image, (width, height)


def _step(pixels: int, max_pixels: int) -> int:
    return next((step for step in REDUCED if pixels <= max_pixels * step * step), max(REDUCED))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f'{path}: {error.strerror or error}') from error


def _decode(path: Path, content: bytes, step: int = 1) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), REDUCED[step]) if content else None
    except cv2.error as error:  # such as more pixels than OpenCV reads, or than there is memory for
        raise UserError(f'{path} cannot be decoded: {error.err or error}') from error
    if image is None:
        raise UserError(f'{path} cannot be decoded as an image: {_why(path) if content else "it is empty"}')
    return image


def _stated_size(content: bytes) -> tuple[int, int]:
    """Width and height that the head of an image file states; zeros if it cannot be read."""
    limit = PIL.Image.MAX_IMAGE_PIXELS
    PIL.Image.MAX_IMAGE_PIXELS = None  # nothing is decoded here
    try:
        with PIL.Image.open(io.BytesIO(content)) as image:
            return image.size
    except Exception:  # Pillow's plugins fail in many ways
        return 0, 0
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = limit


def _why(path: Path) -> str:
    _, opinion = pillow_opinion(path)
    if not opinion:
        return 'OpenCV does not read this format; convert it to PNG'
    return (
        'it is truncated' if 'truncated' in opinion.lower() else 'it is damaged, or of a format that is not supported'
    )


def find_inputs(patterns: Iterable[str], leave_out: Optional[Path] = None) -> list[Path]:
    """The image and video files that ``patterns`` name: files, folders with their subfolders, and globs; each once.

    In folders the suffix decides; a file that is named, or matched by a glob, may have any. Of folders, files below
    ``leave_out`` are left out, where results may lie. Raises UserError for a pattern without files.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            files = [file for file in sorted(path.rglob('*')) if file.suffix.lower() in (*IMAGES, *VIDEOS)]
            if leave_out is not None and real_path(leave_out).is_relative_to(real_path(path)):
                files = [file for file in files if not real_path(file).is_relative_to(real_path(leave_out))]
        elif path.exists():
            files = [path]
        else:
            files = [Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if Path(name).is_file()]
        if not files:
            raise UserError(f'{pattern}: no image or video found; check the path')
        found.update(dict.fromkeys(files))
    return list(found)


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its suffix."""
    return path.suffix.lower() in VIDEOS
