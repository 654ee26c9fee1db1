"""Signals that reach a process while it waits in compiled code, where Python runs no handler."""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Collection
from typing import Optional

HURRY = 2.0  # s that are left after a signal has come again


class SignalWatch:
    """Calls ``late(number)`` in a thread if this process still runs ``seconds`` after the first of ``numbers``.

    A process that waits for another one in a collective operation takes no notice of signals until it goes on, which it
    may never do. A signal that comes again ``repeat`` seconds after the first or later shortens the wait.

    Args:
        numbers: signals, which must have handlers in Python.
        seconds: to wait.
        repeat: what comes earlier than this is the same request: torchrun passes on what the processes have already.
        late: is called once.
    """

    def __init__(self, numbers: Collection[int], seconds: float, repeat: float, late: Callable[[int], object]) -> None:
        self.numbers, self.seconds, self.repeat, self.late = numbers, seconds, repeat, late
        self._pipe: Optional[tuple[int, int]] = None

    def start(self) -> None:
        """Begin; only the main thread can."""
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        _watches.append(self)
        self._thread = threading.Thread(target=self._watch, args=(self._pipe[0],), name='signals', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watch, if it has begun."""
        if self._pipe is not None:
            signal.set_wakeup_fd(self._before)
            _watches.remove(self)
            os.write(self._pipe[1], b'\0')  # no signal has this number
            self._thread.join()
            for end in self._pipe:
                os.close(end)
            self._pipe = None

    def _watch(self, pipe: int) -> None:
        first, deadline = 0, float('inf')
        began = 0.0
        while not first or time.monotonic() < deadline:
            wait = None if not first else max(0.0, deadline - time.monotonic())
            if not select.select([pipe], [], [], wait)[0]:
                continue
            number = os.read(pipe, 1)[0]
            if number == 0:
                return
            if number not in self.numbers:
                continue
            now = time.monotonic()
            if not first:
                first, began, deadline = number, now, now + self.seconds
            elif now - began >= self.repeat:
                deadline = min(deadline, now + HURRY)
        self.late(first)


_watches: list[SignalWatch] = []


def _forget() -> None:
    """In a forked process: what it receives must not be taken for the parent's."""
    if _watches:
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
        _watches.clear()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_forget)
