"""What happens to data while they are loaded: images that vanish, workers that are killed or run out of memory."""

import errno
import os
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np

from mixdet.errors import UserError

SHARED = '/dev/shm'  # noqa: S108  (where Linux has the memory in which workers hand over their batches)
REPORTED = 'mixdet.errors.UserError: '  # in the traceback that a worker sends


def unreadable_image(error: BaseException) -> Optional[str]:
    """The image whose loading failed with ``error``, and why its file cannot be read; None if it is not the cause.

    MMDetection's transforms, also those that load several images, keep what they work on in ``results``.
    """
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        results = frame.f_locals.get('results')
        path = results.get('img_path') if isinstance(results, dict) else None
        if isinstance(path, (str, Path)) and '://' not in str(path):
            reason = _why_unreadable(Path(path))
            return reason and f'image {path} {reason}; it was changed while it was in use, or never checked'
    return None


def _why_unreadable(path: Path) -> Optional[str]:
    try:
        content = path.read_bytes()
        if not content:
            return 'is empty'
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except OSError as error:
        return f'cannot be read: {error.strerror}'
    except cv2.error:
        decoded = None
    return 'cannot be decoded' if decoded is None else None


def explained_batches(batches: Iterator) -> Iterator:
    """The batches of a data loader's iterator; what a worker says, and its death, as a UserError of one line."""
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except UserError as error:
            raise UserError(str(error).rpartition(REPORTED)[2].strip()) from error
        except (RuntimeError, ConnectionError, EOFError) as error:  # the latter if it dies while it sends
            reason = _lost_worker(error, getattr(batches, '_workers', ()))
            if reason is None:
                raise
            raise UserError(reason) from error
        yield batch


def _lost_worker(error: Exception, workers: Any) -> Optional[str]:
    """Why a worker is lost; None if ``error`` is another."""
    text = str(error)
    if not isinstance(error, RuntimeError):
        for worker in workers:  # its files are closed before its end is known
            worker.join(1)
    statuses = {worker.exitcode for worker in workers} - {0, None}
    memory = 'shared memory' in text or {errno.ENOSPC, -getattr(signal, 'SIGBUS', 0)} & statuses
    if 'Caught' in text and not memory:
        return None
    if memory:
        return f'the workers of the data loader have too little shared memory: {_shared_memory()}'
    if not text.startswith('DataLoader worker') and (isinstance(error, RuntimeError) or not statuses):
        return None
    if -getattr(signal, 'SIGKILL', 0) in statuses:
        return (
            'a worker of the data loader was killed (SIGKILL), as the system does when memory runs out; use fewer '
            'num_workers or a smaller batch_size'
        )
    ends = ', '.join(_name(status) for status in statuses if status) or 'unknown'
    return f'a worker of the data loader ended ({ends}); num_workers=0 shows its error'


def _name(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f'status {status}'


def _shared_memory() -> str:
    cure = f'enlarge {SHARED} (docker run --shm-size=8g) or set num_workers=0'
    try:
        found = os.statvfs(SHARED)
    except (OSError, AttributeError):
        return cure
    whole, free = (blocks * found.f_frsize / 2**20 for blocks in (found.f_blocks, found.f_bavail))
    return f'{SHARED} has {whole:.4g} MiB, {free:.4g} of them free; {cure}'
