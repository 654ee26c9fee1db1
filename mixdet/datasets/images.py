"""Are the image files of a COCO file there, and as it says?"""

from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from mixdet.datasets.issues import Report

ORIENTATION = 0x0112  # EXIF tag; 1 is upright, 5 to 8 lie on a side


def check_images(
    images: list[dict], folder: Path, report: Report, decode: bool, progress: Callable[[Iterable], Iterable] = iter
) -> set:
    """Note what is wrong with the files of ``images`` in ``folder``; returns the ids of those that cannot be used.

    Args:
        images: sound entries of a COCO file.
        folder: ``file_name`` is relative to it.
        report: takes the faults.
        decode: read every pixel, not only the folder.
        progress: wraps the list to show how far it is.
    """
    unusable = set()
    for image in progress(images):
        path, where = folder / image['file_name'], f'image {image["id"]}'
        if not path.is_file():
            report.add('image file missing', where, str(path))
        elif not decode or _is_sound(path, image, where, report):
            continue
        unusable.add(image['id'])
    return unusable


def _is_sound(path: Path, image: dict, where: str, report: Report) -> bool:
    """Whether the file can be decoded; notes sizes and rotations as well."""
    try:
        with Image.open(path) as file:
            width, height = file.size
            turned = file.getexif().get(ORIENTATION, 1)
            file.load()
    except (UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
        report.add('image file unreadable', where, str(path))
        return False
    except OSError as error:
        kind = 'image file truncated' if 'truncated' in str(error) else 'image file unreadable'
        report.add(kind, where, f'{path}: {error}')
        return False
    if turned in range(5, 9):
        width, height = height, width
    if turned in range(2, 9):
        report.add('image file rotated by EXIF', where, f'{path}: orientation {turned}, read as {width}x{height}')
    if (width, height) != (image['width'], image['height']):
        stated = f'{image["width"]}x{image["height"]}'
        report.add('image file of another size', where, f'{path} is {width}x{height}, stated {stated}')
    return True
