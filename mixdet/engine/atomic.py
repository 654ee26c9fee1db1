"""Atomic writing of files: after a crash of the process or the machine a file has its old or its new content."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mixdet.errors import UserError

PARTIAL = '.partial'  # suffix of a file that is being written


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of ``path`` to write to; then syncs it to disk and renames it to ``path``.

    An error, also one of the disk, leaves ``path`` as it was and no temporary file.
    """
    partial = path.with_name(f'.{path.name}{PARTIAL}')
    try:
        yield partial
        with partial.open('rb+') as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yields a path of the same name in a temporary folder beside ``path`` to write to; then moves the file to it.

    For writers that look at the name, or write several times. An error leaves nothing.

    Raises:
        UserError: if ``path`` exists by then, or its folder cannot be written to.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix='.', suffix=PARTIAL, dir=path.parent)
    except OSError as error:
        raise UserError(f'{path.parent}: {error.strerror or error}') from error
    with folder:
        partial = Path(folder.name, path.name)
        yield partial
        with partial.open('rb+') as file:
            os.fsync(file.fileno())
        try:
            os.link(partial, path)
        except FileExistsError as error:
            raise UserError(f'{path} exists already; choose another name or remove it') from error
        except OSError:  # a file system without links
            os.replace(partial, path)
    _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``; a reader finds either the old content or the new."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding='utf-8')


def _sync_folder(folder: Path) -> None:
    """Sync ``folder``, without which a rename in it may be lost; not every system can open folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
