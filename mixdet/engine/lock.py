"""One training at a time in a folder: a lock that says who holds it, and that a dead holder does not keep.

The kernel's lock on a file (``flock``) ends with the process that holds it, however that ends. It is not seen from
other machines where a network file system is mounted without locks, so the file also names its holder, who touches it
every few seconds.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Optional

from mmengine.dist import broadcast_object_list, is_main_process

from mixdet.engine.holder import Holder, place, read_holder, start_of
from mixdet.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = '.training.lock'  # in the folder
BEAT = 10.0  # s between two signs of life
SILENCE = 60.0  # s without one, after which a holder on another machine is taken for dead
POLL = 1.0  # s between two looks at a lock that is waited for
SETTLING = 3.0  # s that a holder may take to write its name
CURE = 'wait for it, stop it, or set another work_dir'


class InUseError(UserError):
    """Another process holds the lock."""


class FolderLock:
    """A lock on ``folder``, which must exist.

    Args:
        folder: what to lock.
        say: is called with what a user should know: that another holder is waited for, or was dead.
        name: of the lock's file in the folder.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], name: str = LOCK) -> None:
        self.folder, self.path, self._say = folder, folder.resolve() / name, say
        self._descriptor: Optional[int] = None
        self._stop = threading.Event()

    def acquire(self) -> None:
        """Take the lock. A holder on another machine is watched for up to ``SILENCE`` seconds.

        Raises:
            InUseError: if another process holds it.
            UserError: if the folder cannot be written to.
        """
        earlier = _held.pop(self.path, None)
        if earlier is not None:  # of a run that ended in this process without releasing it
            earlier.release()
        try:
            while not self._try():
                time.sleep(POLL)
        except OSError as error:
            reason = f'{error.strerror or error} ({self.path.name})'
            raise UserError(f'checkpoints cannot be written to {self.folder}: {reason}; set work_dir') from error
        _held[self.path] = self
        self._thread = threading.Thread(target=self._beat, name='work dir lock', daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise UserError if the folder is gone or another process has taken the lock; take it again if it was removed.

        Called before anything in the folder is replaced, since a process that was suspended has given no sign of life.
        """
        if self._descriptor is None:
            return
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            if not self.folder.is_dir():
                raise UserError(
                    f'work dir {self.folder} was removed, or its disk is gone; nothing more can be saved'
                ) from error
            self.release()
            return self.acquire()
        try:
            holder = read_holder(descriptor)
        finally:
            os.close(descriptor)
        if holder != self._holder:
            self.release()
            raise UserError(
                f'{self.folder} was taken over by another training ({holder or "unknown"}), while this one gave no '
                'sign of life; this one ends and has changed nothing there since'
            )

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._descriptor is not None:
            self._stop.set()
            self._thread.join()  # it touches the file by its descriptor
            with contextlib.suppress(OSError):
                if read_holder(self._descriptor) == self._holder and self._is_in_place(self._descriptor):
                    self.path.unlink()
            self._close()
        if _held.get(self.path) is self:
            del _held[self.path]

    def _try(self) -> bool:
        """Whether the lock is ours now; raises InUseError if it is known to be another's."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, 'O_NOFOLLOW', 0), 0o666)
        keep = False
        try:
            free = _kernel_lock(descriptor)
            holder = read_holder(descriptor)
            if holder is None or holder.inode != os.fstat(descriptor).st_ino:
                holder = None
            dead = holder is not None and self._is_dead(holder, free, os.fstat(descriptor).st_mtime_ns)
            if free is False and (holder is None or dead):
                self._wait_for_name()
            elif (holder is None or dead) and self._is_in_place(descriptor):
                if holder is not None:
                    self._say(f'the training that held {self.folder} is dead ({holder}): going on')
                self._take(descriptor)
                keep = True
            return keep
        finally:
            if not keep:
                os.close(descriptor)

    def _is_dead(self, holder: Holder, free: Optional[bool], sign: int) -> bool:
        """Whether ``holder`` is dead; False if it has to be waited for. Raises InUseError if it is alive."""
        refusal = f'{self.folder} is in use by another training ({holder}); {CURE}'
        if holder.is_here():
            if holder.is_alive():
                raise InUseError(refusal)
            return True
        if free and not holder.place and holder.host == socket.gethostname():
            return True  # a system without /proc, whose kernel has told
        if self._watched is None:
            self._watched = (sign, time.monotonic())
            wait = f'waiting up to {SILENCE:.0f} s for a sign of life'
            self._say(f'{self.folder} is in use by another training ({holder}); {wait}')
        first, since = self._watched
        if sign != first:
            raise InUseError(refusal)
        if time.monotonic() - since < SILENCE:
            return False
        if free is False:
            raise InUseError(
                f'{self.folder} is locked by another training ({holder}), which has given no sign of life for '
                f'{SILENCE:.0f} s; if it is dead, remove {self.path}'
            )
        return True

    _watched: Optional[tuple[int, float]] = None  # a holder's sign of life, and when it was seen first
    _unnamed: Optional[float] = None  # since when the lock is held by a process that has not written its name

    def _wait_for_name(self) -> None:
        self._unnamed = self._unnamed or time.monotonic()
        if time.monotonic() - self._unnamed > SETTLING:
            raise InUseError(f'{self.folder} is in use by another training, which does not say its name; {CURE}')

    def _is_in_place(self, descriptor: int) -> bool:
        """Whether the file is still the one at the lock's path: a holder removes it at its end."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _take(self, descriptor: int) -> None:
        self._holder = Holder(
            host=socket.gethostname(),
            pid=os.getpid(),
            place=place(),
            start=start_of(os.getpid()) or '',
            since=time.strftime('%Y-%m-%d %H:%M:%S %z'),
            inode=os.fstat(descriptor).st_ino,
        )
        try:
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps(self._holder._asdict()).encode())
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise
        self._descriptor, self._watched, self._unnamed = descriptor, None, None
        self._stop = threading.Event()

    def _beat(self) -> None:
        """Touch the file until the lock is released."""
        stop, descriptor = self._stop, self._descriptor
        while not stop.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(descriptor if os.utime in os.supports_fd and descriptor is not None else self.path)

    def _close(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


_held: dict[Path, FolderLock] = {}  # by path, the locks of this process


def _leave_to_parent() -> None:
    """In a forked process, such as a data loader's worker: the lock must end with the parent."""
    for lock in _held.values():
        lock._close()
    _held.clear()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_leave_to_parent)


def lock_folders(folders: Iterable[Path], say: Callable[[str], None]) -> list[FolderLock]:
    """Lock ``folders``, which are made where they are missing; by the main process, for all processes of a training.

    Raises:
        UserError: in every process, if one of them is in use by another training or cannot be written to.
    """
    locks: list[FolderLock] = []
    problem: list[Optional[str]] = [None]
    if is_main_process():
        try:
            for folder in folders:
                lock = FolderLock(folder, say)
                _make(folder)
                lock.acquire()
                locks.append(lock)
        except UserError as error:
            problem = [str(error)]
            for lock in locks:
                lock.release()
    broadcast_object_list(problem)
    if problem[0] is not None:
        raise UserError(problem[0])
    return locks


def check_free(folder: Path) -> None:
    """Raise UserError if a running training of this machine holds ``folder``: soon, before anything is prepared."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return
    try:
        holder = read_holder(descriptor)
        if holder and holder.inode == os.fstat(descriptor).st_ino and holder.is_here() and holder.is_alive():
            raise UserError(f'{folder} is in use by another training ({holder}); {CURE}')
    finally:
        os.close(descriptor)


def is_held_elsewhere(folder: Path, name: str = LOCK) -> bool:
    """Whether the lock's file names a holder on another machine, of which only waiting tells whether it is alive."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY)
    except OSError:
        return False
    try:
        holder = read_holder(descriptor)
        return holder is not None and holder.inode == os.fstat(descriptor).st_ino and not holder.is_here()
    finally:
        os.close(descriptor)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'checkpoints cannot be written to {folder}: {error.strerror or error}; set work_dir'
        ) from error


def _kernel_lock(descriptor: int) -> Optional[bool]:
    """Lock a file: whether it was free; None where the system or the file system has no such locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
