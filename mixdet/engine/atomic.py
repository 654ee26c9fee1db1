"""Files that are there whole or not at all, whenever the process or the machine stops."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PARTIAL = '.partial'  # suffix of a file that is being written


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; afterwards synced to disk and renamed to ``path``.

    An error inside, and one of the disk, leaves ``path`` as it was and no temporary file.
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


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` so that a reader finds the old content or the new."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding='utf-8')


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` last; not every system can open folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
