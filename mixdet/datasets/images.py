"""Checks of the image files that a COCO file names."""

from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from mixdet.datasets.issues import IssueLog

ORIENTATION = 0x0112  # EXIF tag; 1 is upright, 2-8 are mirrored or rotated, of which 5-8 swap width and height


def check_images(
    images: list[dict], folder: Path, log: IssueLog, decode: bool, progress: Callable[[Iterable], Iterable] = iter
) -> set:
    """Add every issue of the files of ``images`` to ``log`` and return the ids of the images that cannot be used.

    Args:
        images: valid image entries of a COCO file.
        folder: the folder that ``file_name`` is relative to.
        log: gets the issues.
        decode: decode every image; otherwise only check that the files exist.
        progress: wraps the list, to show a progress bar.
    """
    unusable = set()
    for image in progress(images):
        path, where = folder / image['file_name'], f'image {image["id"]}'
        if not path.is_file():
            log.add('missing image file', where, str(path))
        elif not decode or _can_be_decoded(path, image, where, log):
            continue
        unusable.add(image['id'])
    return unusable


def _can_be_decoded(path: Path, image: dict, where: str, log: IssueLog) -> bool:
    """Whether the whole file can be decoded; its size and rotation are checked as well."""
    try:
        with Image.open(path) as file:
            width, height = file.size
            orientation = file.getexif().get(ORIENTATION, 1)
            file.load()
    except (UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
        log.add('unreadable image file', where, str(path))
        return False
    except OSError as error:
        kind = 'truncated image file' if 'truncated' in str(error) else 'unreadable image file'
        log.add(kind, where, f'{path}: {error}')
        return False
    if orientation in range(5, 9):
        width, height = height, width
    if orientation in range(2, 9):
        log.add('image rotated by EXIF', where, f'{path}: orientation {orientation}, read as {width}x{height}')
    if (width, height) != (image['width'], image['height']):
        stated = f'{image["width"]}x{image["height"]}'
        log.add('image file of another size', where, f'{path} is {width}x{height}, but the file says {stated}')
    return True
