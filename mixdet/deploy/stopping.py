"""Ctrl-C and a cluster's signals while results are written: what has been begun is finished first."""

import signal
import sys
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn, Optional

from mixdet.text import print

SIGNALS = tuple(getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP') if hasattr(signal, name))


class StopSignals:
    """In this context the first of ``SIGNALS`` only asks ``check`` to stop the work; a second one stops it at once.

    It is stopped by KeyboardInterrupt, or SystemExit with the status that the signal's name stands for (143 for
    SIGTERM). Signals that this process was started to ignore, as by nohup, are ignored. Only the main thread gets any.
    """

    def __init__(self) -> None:
        self._received = 0
        self._before: dict[int, Any] = {}

    def check(self) -> None:
        """Stop if a signal was received."""
        if self._received:
            self._stop(self._received)

    def __enter__(self) -> 'StopSignals':
        if threading.current_thread() is threading.main_thread():
            wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._receive) for number in wanted}
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: Optional[FrameType]) -> None:
        if self._received:
            self._stop(number)
        self._received = number
        with suppress(OSError, RuntimeError):  # no terminal any more, or in the middle of another print
            print(f'{signal.Signals(number).name}: stopping after this image; again to stop at once', file=sys.stderr)

    @staticmethod
    def _stop(number: int) -> NoReturn:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
