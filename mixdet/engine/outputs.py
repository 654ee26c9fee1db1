"""Files made of a user's files, in a folder: each in its own, none outside it, none over a file that was there."""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from mixdet.errors import UserError, first_line

JPEG = ('.jpg', '.jpeg')
JPEG_SIDE = 65_500  # px, the longest that JPEG can hold
NAME_BYTES = 240  # of a file name; most systems take 255


def common_folder(paths: Iterable[Path]) -> Optional[Path]:
    """The absolute folder that all ``paths`` lie in; None if there is none, as on two drives."""
    with suppress(ValueError):
        return Path(os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths]))
    return None


def relative_path(path: Path, folder: Optional[Path]) -> Path:
    """``path`` below ``folder``, without ``..``; its name if it lies elsewhere."""
    whole = Path(os.path.abspath(path))
    return whole.relative_to(folder) if folder and whole.is_relative_to(folder) else Path(whole.name)


class OutputFolder:
    """A folder for files that are named after others.

    Args:
        folder: made when the first file is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, relative: Path, suffixes: tuple[str, ...]) -> Path:
        """A new empty file, as near to ``folder/relative`` as can be, for the caller to fill.

        The first of ``suffixes`` is appended unless the name has one of them. A number follows the name where there is
        such a file already. Where its folder cannot be one, or leads out of ``folder`` by a link, the name is that of
        the whole path with underscores.

        Raises:
            UserError: if it cannot be written.
        """
        suffix = relative.suffix if relative.suffix.lower() in suffixes else suffixes[0]
        stem = relative.name[: -len(suffix)] if relative.suffix == suffix else relative.name
        parent = self.folder / relative.parent
        try:
            if not self._make(parent):
                parent, stem = self.folder, '_'.join((*relative.parent.parts, stem))
                parent.mkdir(parents=True, exist_ok=True)
            while len(os.fsencode(stem)) > NAME_BYTES:
                stem = stem[:-1]
            number = 1
            while True:
                path = parent / (f'{stem}_{number}{suffix}' if number > 1 else f'{stem}{suffix}')
                with suppress(FileExistsError):
                    path.open('xb').close()
                    return path
                number += 1
        except OSError as error:
            raise UserError(f'{self.folder / relative} cannot be written: {error.strerror or error}') from error

    def write_image(self, relative: Path, image: np.ndarray) -> Path:
        """Write ``image`` (H, W, 3), uint8 BGR, as JPEG, or PNG if it is too large for that; returns the file's path.

        Raises UserError if it cannot be written.
        """
        suffixes = JPEG if max(image.shape[:2]) <= JPEG_SIDE else ('.png',)
        path = self.create(relative, suffixes)
        try:
            done, content = cv2.imencode(suffixes[0], image)
            if not done:
                raise OSError('it cannot be encoded')
            path.write_bytes(content.tobytes())
        except BaseException as error:
            with suppress(OSError):
                path.unlink()  # nothing that is half an image
            if isinstance(error, (OSError, cv2.error)):
                reason = getattr(error, 'strerror', None) or first_line(error)
                raise UserError(f'{path} cannot be written: {reason}') from error
            raise
        return path

    def _make(self, parent: Path) -> bool:
        """Make ``parent``; False if a file is in its way or a link leads it out of the folder."""
        try:
            if not parent.resolve().is_relative_to(self.folder.resolve()):
                return False
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG):
                return False
            raise
        return True
