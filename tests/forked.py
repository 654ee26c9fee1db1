"""Work in a fork of the tests' process: it has its own signals, locks and end, and needs no seconds for imports."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Optional


def fork(act: Callable[[], object], output: Optional[Path] = None) -> int:
    """Begin ``act`` in a new process, whose output goes to ``output``; returns its process id."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        if output is not None:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.stdout, sys.stderr = os.fdopen(1, 'w', closefd=False), os.fdopen(2, 'w', closefd=False)
        act()
        status = 0
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def end_of(process: int) -> int:
    """Wait for the end of a process: its status, or its signal as a negative number."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def run(act: Callable[[], object], output: Path) -> tuple[int, str]:
    """Run ``act`` in a new process: its status and what it printed."""
    status = end_of(fork(act, output))
    return status, output.read_text()
