"""Checks of the image files that a COCO file names, read as the training reads them."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from mixdet.datasets.issues import IssueLog
from mixdet.errors import first_line
from mixdet.registry import TRANSFORMS

ORIENTATION = 0x0112  # EXIF tag; 1 is upright, 2-8 are mirrored or rotated
ROTATING = ('color', 'grayscale')  # values of color_type with which OpenCV and Pillow follow that tag


def image_loader(pipeline: Optional[Sequence] = None) -> Callable[[dict], Optional[dict]]:
    """The transform of ``pipeline`` that loads images; MMDetection's default where there is none."""
    for step in pipeline or ():
        # mixdet.SSDCrop and mixdet.LoadCachedImage may hold the transform that reads the file itself
        transform = (step.get('loader') or step) if isinstance(step, dict) else step
        if isinstance(transform, dict):
            if not re.search(r'Load\w*Image', str(transform.get('type'))):
                continue
            with TRANSFORMS.switch_scope_and_registry('mmdet') as registry:
                transform = registry.build(transform)
        while getattr(transform, 'loader', None) is not None:
            transform = transform.loader
        if isinstance(transform, LoadImageFromFile) or isinstance(step, dict):
            return transform
    return LoadImageFromFile()


def check_images(
    images: list[dict],
    folder: Path,
    log: IssueLog,
    decode: bool,
    progress: Callable[[Iterable], Iterable] = iter,
    load: Optional[Callable[[dict], Optional[dict]]] = None,
    channels: Optional[int] = None,
) -> set:
    """Add every issue of the files of ``images`` to ``log`` and return the ids of the images that cannot be used.

    A name with backslashes is written with slashes in ``images``, if such a file exists.

    Args:
        images: valid image entries of a COCO file.
        folder: the folder that ``file_name`` is relative to.
        log: gets the issues.
        decode: decode every image; otherwise only check that the files exist.
        progress: wraps the list, to show a progress bar.
        load: from ``image_loader``, the transform with which the pipeline reads them.
        channels: how many the model's data preprocessor takes; None for any number.
    """
    unusable = set()
    check = _FileCheck(log, load or image_loader(), channels)
    for image in progress(images):
        path, where = folder / image['file_name'], f'image {image["id"]}'
        if not path.is_file():
            slashes = image['file_name'].replace('\\', '/')
            if slashes == image['file_name'] or not (folder / slashes).is_file():
                log.add('missing image file', where, f'{path}{_hint(path, folder)}')
                unusable.add(image['id'])
                continue
            log.add('backslash in file name', where, f'{image["file_name"]}, but {folder / slashes} exists')
            path, image['file_name'] = folder / slashes, slashes
        if decode and not check(path, image, where):
            unusable.add(image['id'])
    return unusable


class _FileCheck:
    """Decodes files; each call tells whether a file can be used."""

    def __init__(self, log: IssueLog, load: Callable[[dict], Optional[dict]], channels: Optional[int]) -> None:
        self.add = log.add
        self.load = load
        self.channels = channels
        # turbojpeg and tifffile do not rotate
        rotating = getattr(load, 'color_type', 'color') in ROTATING
        self.rotates = rotating and getattr(load, 'imdecode_backend', 'cv2') in ('cv2', 'pillow', None)

    def __call__(self, path: Path, image: dict, where: str) -> bool:
        pixels, reason = self._decode(path, image)
        orientation, opinion = pillow_opinion(path)
        if pixels is None:
            self.add('unreadable image file', where, f'{path}: {_why(path, reason, opinion)}')
            return False
        height, width = pixels.shape[:2]
        found = pixels.shape[2] if pixels.ndim == 3 else 1
        if self.channels not in (None, found):
            self.add('image file of other channels', where, f'{path}: {found} instead of {self.channels}')
            return False
        if pixels.dtype.kind == 'f' and not np.isfinite(pixels).all():
            self.add('image file not finite', where, f'{path}: it has pixels that are NaN or infinite')
            return False
        if 'truncated' in opinion.lower():
            self.add('truncated image file', where, f'{path}: {opinion}')
            return False
        if orientation in range(2, 9) and self.rotates:
            self.add('image rotated by EXIF', where, f'{path}: orientation {orientation}, read as {width}x{height}')
        if (width, height) != (image['width'], image['height']):
            stated = f'{image["width"]}x{image["height"]}'
            self.add('image file of another size', where, f'{path} is {width}x{height}, but the file says {stated}')
        return True

    def _decode(self, path: Path, image: dict) -> tuple[Optional[np.ndarray], str]:
        """The pixels as the pipeline gets them, or None and why not."""
        try:
            with _quiet():
                results = self.load(dict(image, img_path=str(path), img_id=image['id']))
        except AssertionError:  # MMCV: the decoder gave nothing
            return None, ''
        except Exception as error:  # a decoder can fail in any way
            return None, first_line(error)
        return (None, '') if results is None else (np.asarray(results['img']), '')


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without OpenCV's own lines about a file, which do not name it."""
    logging = getattr(cv2.utils, 'logging', None)  # older versions of OpenCV lack it
    if logging is None:
        yield
        return
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def pillow_opinion(path: Path) -> tuple[int, str]:
    """EXIF orientation, and what Pillow says against the file; OpenCV tells neither."""
    orientation = 1
    try:
        with Image.open(path) as file:
            orientation = file.getexif().get(ORIENTATION, 1)
            if file.format == 'JPEG':
                file.draft(file.mode, (1, 1))  # the whole file is read, and an eighth of the pixels computed
            file.load()
    except Exception as error:  # Pillow's plugins fail in many ways
        return orientation, first_line(error)
    return orientation, ''


def _why(path: Path, reason: str, opinion: str) -> str:
    """Why a file cannot be decoded, and what to do."""
    if not path.stat().st_size:
        return 'it is empty'
    if 'truncated' in opinion.lower():
        return f'it is truncated ({opinion}); copy or export it again'
    if not opinion:
        reason = reason or 'it cannot be decoded as the pipeline reads images'
        return f"{reason}, though Pillow can: convert it to PNG, or set imdecode_backend='pillow' in LoadImageFromFile"
    return reason or 'it is not an image that can be decoded'


def _hint(path: Path, folder: Path) -> str:
    """Where a missing file probably is."""
    candidates: list[Any] = [folder / path.name, *(path.with_suffix(suffix) for suffix in ('.jpg', '.JPG', '.png'))]
    if '\\' in path.name:
        candidates.append(folder / path.name.rpartition('\\')[2])
    near = next((candidate for candidate in candidates if candidate != path and candidate.is_file()), None)
    if near is not None:
        return f', but {near} exists'
    return ' (backslashes separate folders only on Windows)' if '\\' in path.name else ''
