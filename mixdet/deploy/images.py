"""Finding a user's images and videos, and reading images."""

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Optional, Union

import cv2
import numpy as np

from mixdet.datasets.images import pillow_opinion
from mixdet.errors import UserError

# what a folder is searched for: read_image tells which of them this OpenCV can decode, and names the others
IMAGES = (
    '.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.apng', '.bmp', '.dib', '.webp', '.tif', '.tiff', '.gif', '.avif',
    '.jp2', '.j2k', '.pbm', '.pgm', '.ppm', '.pnm', '.pam', '.pfm', '.ras', '.sr', '.hdr', '.pic', '.exr', '.tga',
    '.pcx', '.ico', '.heic', '.heif', '.jxl', '.dds', '.sgi', '.psd',
)  # fmt: skip
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


def read_image(path: Union[str, Path]) -> np.ndarray:
    """The image as (H, W, 3) uint8 BGR, rotated by its EXIF orientation, as the training pipeline reads it.

    Greyscale becomes three equal channels, an alpha channel is dropped, 16 bits are scaled to 8.

    Raises:
        UserError: if the file does not exist or cannot be decoded as an image.
    """
    path = Path(path)
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except OSError as error:
        raise UserError(f'{path}: {error.strerror or error}') from error
    except cv2.error as error:  # such as more pixels than OpenCV reads
        raise UserError(f'{path} cannot be decoded: {error.err or error}') from error
    if image is None:
        raise UserError(f'{path} cannot be decoded as an image: {_why(path) if content.size else "it is empty"}')
    return image


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
            if leave_out is not None and leave_out.resolve().is_relative_to(path.resolve()):
                files = [file for file in files if not file.resolve().is_relative_to(leave_out.resolve())]
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
