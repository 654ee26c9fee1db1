"""Files made of a user's files, in a folder: each in its own, none outside it, none over a file that was there."""

import errno
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from mixdet.errors import UserError, first_line

JPEG = ('.jpg', '.jpeg')
JPEG_SIDE = 65_500  # px, the longest that JPEG can hold
NAME_BYTES = 240  # of a file name; most systems take 255


def real_path(path: Path) -> Path:
    """``path`` without links and ``..``; unlike ``Path.resolve`` it also takes links that lead to themselves."""
    return Path(os.path.realpath(path))


def common_folder(paths: Iterable[Path]) -> Optional[Path]:
    """The absolute folder that all ``paths`` lie in; None if there is none, as on two drives."""
    with suppress(ValueError):
        return Path(os.path.commonpath([_absolute(path).parent for path in paths]))
    return None


def relative_path(path: Path, folder: Optional[Path]) -> Path:
    """``path`` below ``folder``, without ``..``; its name if it lies elsewhere."""
    whole = _absolute(path)
    return whole.relative_to(folder) if folder and whole.is_relative_to(folder) else Path(whole.name)


class OutputFolder:
    """A folder for files that are named after others.

    No two names differ by case or by how Unicode composes letters alone, nor is one the name of a folder: the files can
    be copied to any system.

    Args:
        folder: made when the first file is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: set[str] = set()  # keys of the paths below the folder
        self._folders: defaultdict[str, set[Path]] = defaultdict(set)  # those that are there, by key
        self._listed: set[Path] = set()
        self._numbers: Counter[str] = Counter()  # the last that was tried, by key

    def create(self, relative: Path, suffixes: tuple[str, ...]) -> Path:
        """A new empty file, as near to ``folder/relative`` as can be, for the caller to fill.

        The first of ``suffixes`` is appended unless the name has one of them. A number follows the name where there is
        such a file already. Where its folder cannot be one, or leads out of ``folder`` by a link, the name is that of
        the whole path with underscores.

        Raises:
            UserError: if it cannot be written.
        """
        try:
            file, path = self._open(relative, suffixes)
            file.close()
        except OSError as error:
            raise UserError(f'{self.folder / relative} cannot be written: {error.strerror or error}') from error
        return path

    def write_image(self, relative: Path, image: np.ndarray) -> Path:
        """Write ``image`` (H, W, 3), uint8 BGR, as JPEG, or PNG if it is too large for that; returns the file's path.

        Raises UserError if it cannot be written; nothing is left of it then.
        """
        suffixes = JPEG if max(image.shape[:2]) <= JPEG_SIDE else ('.png',)
        path = self.folder / relative
        try:
            done, content = cv2.imencode(suffixes[0], image)
            if not done:
                raise OSError('it cannot be encoded')
            file, path = self._open(relative, suffixes)
            try:
                with file:
                    write_all(file, content.tobytes())
            except BaseException:
                with suppress(OSError):
                    path.unlink()
                raise
        except (OSError, cv2.error) as error:
            reason = getattr(error, 'strerror', None) or first_line(error)
            raise UserError(f'{path} cannot be written: {reason}') from error
        return path

    def _open(self, relative: Path, suffixes: tuple[str, ...]) -> tuple[FileIO, Path]:
        """A new file, opened, and its path."""
        suffix = relative.suffix if relative.suffix.lower() in suffixes else suffixes[0]
        stem = relative.name[: -len(suffix)] if relative.suffix == suffix else relative.name
        parent = relative.parent
        if not self._make(parent):
            parent, stem = Path(), '_'.join((*parent.parts, stem))
            self._make(parent)
        while len(os.fsencode(stem)) > NAME_BYTES:
            stem = stem[:-1]
        first = _key(parent / f'{stem}{suffix}')
        while True:
            self._numbers[first] += 1
            number = self._numbers[first]
            name = parent / (f'{stem}_{number}{suffix}' if number > 1 else f'{stem}{suffix}')
            if _key(name) in self._files or _key(name) in self._folders:
                continue
            with suppress(FileExistsError):
                file = FileIO(self.folder / name, 'xb')
                self._files.add(_key(name))
                return file, self.folder / name

    def _make(self, parent: Path) -> bool:
        """Make the folder ``parent`` in this one; False if a file is in its way or a link leads it out."""
        try:
            if not real_path(self.folder / parent).is_relative_to(real_path(self.folder)):
                return False
            for step in (*reversed(parent.parents), parent):
                if _key(step) in self._files:
                    return False
                if step not in self._listed:
                    (self.folder / step).mkdir(parents=True, exist_ok=True)
                    self._folders[_key(step)].add(step)
                for there in self._folders[_key(step)] - self._listed:
                    self._list(there)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG):
                return False
            raise
        return True

    def _list(self, step: Path) -> None:
        """Note the names that the folder ``step`` has."""
        self._listed.add(step)
        with suppress(PermissionError), os.scandir(self.folder / step) as entries:
            for entry in entries:
                path = step / entry.name
                if entry.is_dir(follow_symlinks=False):
                    self._folders[_key(path)].add(path)
                else:
                    self._files.add(_key(path))


def write_all(file: FileIO, content: bytes) -> None:
    """Write all of ``content``, of which the system may take a part at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _absolute(path: Path) -> Path:
    """``path`` from the root; behind a link ``..`` is not the folder that the link lies in."""
    return real_path(path.parent) / path.name if '..' in path.parts else Path(os.path.abspath(path))


def _key(path: Path) -> str:
    """What is equal for all paths that some system takes for the same."""
    return unicodedata.normalize('NFC', unicodedata.normalize('NFD', str(path)).casefold())
