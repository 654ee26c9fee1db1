"""Reading a user's images and videos."""

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Union

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


def find_inputs(patterns: Iterable[str]) -> list[Path]:
    """The image and video files that ``patterns`` name: files, folders with their subfolders, and globs; each once.

    In folders the suffix decides; a file that is named, or matched by a glob, may have any. Raises UserError for a
    pattern without files.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            files = [file for file in sorted(path.rglob('*')) if file.suffix.lower() in (*IMAGES, *VIDEOS)]
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


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video, (H, W, 3) uint8 BGR. Raises UserError if it cannot be opened or has no frames."""
    capture, count = cv2.VideoCapture(str(path)), 0
    try:
        while True:
            whole, frame = capture.read()
            if not whole:
                break
            count += 1
            yield frame
    finally:
        capture.release()
    if not count:
        raise UserError(f'{path} cannot be decoded as a video')


def frame_rate(path: Path) -> float:
    """Frames per second of a video; 25 if the file does not say."""
    capture = cv2.VideoCapture(str(path))
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return rate if rate > 0 else 25.0
