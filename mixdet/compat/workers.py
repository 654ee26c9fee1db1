"""Data loader workers that die, or that cannot send what they have loaded.

Defects answered:
- PyTorch up to 2.13 reports the death of a worker from a handler of SIGCHLD (utils/data/_utils/signal_handling.py),
  wherever the main process is, so that an iteration is left half done. Can go when it is reported only where the loader
  is asked for a batch, which notices it within seconds.
- multiprocessing of Python up to 3.14 prints a traceback when a worker cannot put a batch into shared memory, and goes
  on; the main process waits for that batch for ever. Can go when the DataLoader sets a worker that ends instead.
"""

import errno
import multiprocessing.queues
import os
import signal
import threading
from typing import NoReturn

from torch.utils.data._utils import signal_handling


def report_deaths_to_the_loader_alone() -> None:
    """Have the death of a worker reported only where its loader is asked for a batch."""
    if not hasattr(signal, 'SIGCHLD') or threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGCHLD)
    if _is_torchs(before):
        before = signal.SIG_DFL
    signal_handling._set_SIGCHLD_handler()  # once in a process
    signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _is_torchs(handler: object) -> bool:
    return getattr(handler, '__module__', None) == signal_handling.__name__


def die_of_unsent_batches() -> None:
    """In a worker: end with the status ENOSPC when a batch cannot be put into shared memory."""

    def die(error: BaseException, unsent: object) -> NoReturn:
        os._exit(errno.ENOSPC)

    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(die)  # type: ignore[attr-defined]
