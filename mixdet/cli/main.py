"""Running a tool: bad input ends in one line and a status."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator

from mixdet.compat.distributed import leave
from mixdet.engine.allocator import keep_freed_memory
from mixdet.errors import UserError

TRACEBACK = 'MIXDET_TRACEBACK'
# of upstream's code, about nothing that a user can change
UPSTREAM_WARNINGS = ('torch.meshgrid', 'pkg_resources', 'pin_memory', 'lr_scheduler.step', 'out of bounds')


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool's ``main`` and exit: status 2 and one line on bad input, 130 on Ctrl-C outside a training.

    With ``MIXDET_TRACEBACK=1`` in the environment bad input shows its traceback as well.
    """
    for noise in UPSTREAM_WARNINGS:
        warnings.filterwarnings('ignore', message=f'.*{noise}')
    keep_freed_memory()
    status = 0
    try:
        main()
    except UserError as error:
        if os.environ.get(TRACEBACK):
            raise
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    except SystemExit as stop:  # argparse, and a training that was interrupted
        status = stop.code
    leave(status)


@contextlib.contextmanager
def user_input(what: str) -> Iterator[None]:
    """Turn what goes wrong inside, where the user's config is being acted on, into a UserError about ``what``."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # configs can ask for anything, and upstream raises anything
        if isinstance(error, FileNotFoundError) and error.filename:
            reason = f'file {error.filename} does not exist'
        else:
            reason = (
                f'{type(error).__name__}: {error}' if not isinstance(error, (ValueError, AssertionError)) else error
            )
        raise UserError(f'{what}: {reason} (traceback: {TRACEBACK}=1)') from error
