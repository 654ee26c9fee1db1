"""Running a tool: bad input ends it with one line and an exit status."""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator

from mmengine.logging import MMLogger

from mixdet.compat.distributed import leave
from mixdet.engine.allocator import keep_freed_memory
from mixdet.errors import UserError
from mixdet.text import log_any_text, print, shortened

TRACEBACK = 'MIXDET_TRACEBACK'
# warnings from upstream's code about what a user cannot change
UPSTREAM_WARNINGS = ('torch.meshgrid', 'pkg_resources', 'pin_memory', 'lr_scheduler.step', 'out of bounds', 'Glyph')


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool's ``main`` and exit: with status 2 and one line on bad input, with 130 on Ctrl-C outside a training.

    With ``MIXDET_TRACEBACK=1`` in the environment bad input also shows its traceback.
    """
    for text in UPSTREAM_WARNINGS:
        warnings.filterwarnings('ignore', message=f'.*{text}')
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what others write may have characters that a locale lacks
            stream.reconfigure(errors='backslashreplace')
    log_any_text(MMLogger.get_current_instance())  # where no Runner has one of its own
    keep_freed_memory()
    status = 0
    try:
        main()
    except (UserError, OSError) as error:
        if os.environ.get(TRACEBACK) or getattr(error, 'errno', 0) is None:  # the system numbers its errors
            raise
        message = ' '.join(_reason(error).split())
        print(f'error: {shortened(message)}{_ascii_names(message)}', file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    except SystemExit as error:  # from argparse, or a training that was interrupted
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    leave(status)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else 'a file'
        return f'{name}: {error.strerror} (traceback: {TRACEBACK}=1)'
    return str(error)


def _ascii_names(message: str) -> str:
    """What to do where the locale cannot name the file in ``message``, as LC_ALL=C without Python's UTF-8 mode."""
    encoding = sys.getfilesystemencoding()
    if message.isascii() or encoding == 'utf-8':
        return ''
    return f' (this locale has {encoding} file names only: set PYTHONUTF8=1)'


@contextlib.contextmanager
def user_input(what: str) -> Iterator[None]:
    """Raise a UserError about ``what`` in place of any error inside, where the user's config is being used."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # configs can ask for anything, and upstream raises anything
        if isinstance(error, FileNotFoundError) and error.filename:
            reason = f'file {error.filename} does not exist'
        elif isinstance(error, (ValueError, AssertionError)):
            reason = str(error)
        else:
            reason = f'{type(error).__name__}: {error}'
        raise UserError(f'{what}: {reason} (traceback: {TRACEBACK}=1)') from error
