"""Atomic writing of files: after a crash of the process or the machine a file has its old or its new content.

Files are written under their own name in a temporary folder beside their place, which only this user can enter: nothing
that others have put there, such as a link, is ever opened.
"""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mixdet.errors import UserError

PARTIAL = '.partial'  # suffix of the temporary folders
RANDOM = '?' * 8  # before it, as tempfile makes it


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path of the same name to write to; then syncs it to disk and renames it to ``path``.

    A file that is replaced passes on its mode, and its owner and group as far as this user may; a new one follows the
    umask. A symbolic link at ``path`` is replaced, too: what it points to stays as it was. An error, also one of the
    disk, leaves ``path`` as it was and no temporary file.

    Raises:
        OSError: if it cannot be written, or ``path`` is neither a file nor a link to one.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, 'it is a folder', str(path))
    if path.exists() and not path.is_file():  # root could replace /dev/null
        raise FileExistsError(errno.EEXIST, 'it is no ordinary file', str(path))
    with _beside(path) as partial:
        yield partial
        _sync(partial)
        _keep_access(path, partial)
        os.replace(partial, path)
        _sync(path.parent)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path of the same name to write to; then moves the file to ``path``. An error leaves nothing.

    Raises:
        UserError: if ``path`` exists by then, or cannot be written.
    """
    with writing(path):
        with _beside(path) as partial:
            yield partial
            _sync(partial)
            _move_to_new(partial, path)
        _sync(path.parent)


@contextlib.contextmanager
def new_files(path: Path) -> Iterator[Path]:
    """Yields a temporary path of the same name for a file or a folder; then moves it to ``path``.

    With it goes what was written beside it. ``path`` comes last: where it is, all of them are. An error leaves nothing.

    Raises:
        UserError: if one of them exists by then, or cannot be written.
    """
    with writing(path):
        with _beside(path) as partial:
            yield partial
            for made in partial.parent.rglob('*'):
                _sync(made)
            moved: list[Path] = []
            try:
                for made in sorted(partial.parent.iterdir(), key=lambda made: made == partial):
                    _move_to_new(made, path.with_name(made.name))
                    moved.append(path.with_name(made.name))
            except BaseException:
                for place in moved:
                    place.unlink()
                raise
        _sync(path.parent)


def check_new(path: Path, option: str = '') -> None:
    """Raise UserError if ``path``, the value of ``option``, exists already, even as a link to nothing."""
    if os.path.lexists(path):
        raise UserError(
            f'{option} {path} exists already; nothing is overwritten, choose another name or remove it'.lstrip()
        )


def check_ours(path: Path, mark: str) -> None:
    """Raise UserError if there is a file at ``path`` without ``mark`` near its beginning: mixdet did not write it."""
    if os.path.lexists(path) and not path.is_dir():  # a folder cannot be replaced
        with writing(path):
            ours = path.is_file() and mark.encode() in path.read_bytes()[:2000]
        if not ours:
            raise UserError(f'{path} is there already and not a file that mixdet wrote; move it elsewhere')


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise a UserError about ``path`` in place of an OSError inside."""
    try:
        yield
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror or error}') from error


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it unless they exist. Raises UserError if that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'folder {folder} cannot be made: {error.strerror or error}') from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``; a reader finds either the old content or the new. Raises as ``atomic_path``."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding='utf-8')


def write_new_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, a file that does not exist. Raises as ``new_file``."""
    with new_file(path) as partial:
        partial.write_text(text, encoding='utf-8')


def remove_leftovers(folder: Path) -> None:
    """Remove what runs that were killed were writing in ``folder``, among them links of such a name."""
    for leftover in folder.glob(f'.*{PARTIAL}'):
        if leftover.is_symlink() or not leftover.is_dir():  # a file of an earlier version
            leftover.unlink()
        elif leftover.match(f'.*.{RANDOM}{PARTIAL}'):
            shutil.rmtree(leftover)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    prefix = f'.{path.name[:40]}.'  # tells whose it is; a name has 255 bytes
    folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=PARTIAL, dir=path.parent))
    try:
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep_access(path: Path, partial: Path) -> None:
    """Give ``partial`` owner, group and mode of the file at ``path``, if there is one."""
    try:
        before = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(before.st_mode):
        return
    mode, made = before.st_mode & 0o777, partial.stat()
    if made.st_uid != before.st_uid:
        with contextlib.suppress(OSError):  # only root may
            os.chown(partial, before.st_uid, -1)
    if made.st_gid != before.st_gid:
        try:
            os.chown(partial, -1, before.st_gid)
        except OSError:  # not a member of that group, whose rights are not for another one
            mode &= ~stat.S_IRWXG
    partial.chmod(mode)


def _move_to_new(partial: Path, path: Path) -> None:
    if partial.is_dir():
        check_new(path)
        os.rename(partial, path)  # of what may have come meanwhile it replaces an empty folder alone
        return
    try:
        try:
            os.link(partial, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            path.open('xb').close()
            os.replace(partial, path)
    except FileExistsError as error:
        raise UserError(f'{path} exists already; nothing is overwritten, choose another name or remove it') from error


def _sync(path: Path) -> None:
    """Sync a file, or a folder, without which a rename in it may be lost; not every system can open folders."""
    is_folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    except OSError:
        if is_folder:
            return
        raise
    try:
        with contextlib.suppress(OSError) if is_folder else contextlib.nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
