"""Errors that end a training from outside, such as a full disk: one line, and a checkpoint of what was reached."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from mmengine.runner import Runner

from mixdet.engine.checkpoint_hook import CheckpointHook
from mixdet.errors import UserError, first_line

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def failures_saved(runner: Runner) -> Iterator[None]:
    """Around a training: save its state when an error ends it between two iterations; one line for errors of files.

    ``runner`` has an attribute ``between_iterations``.
    """
    try:
        yield
    except Exception as error:
        saved = _save(runner) if runner.between_iterations else ''
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise UserError(_file_error(runner, error) + saved) from error
        if isinstance(error, UserError) and saved:
            raise UserError(f'{error}{saved}') from error
        if saved:
            runner.logger.warning(f'{type(error).__name__}: {first_line(error)}{saved}')
        raise


def _save(runner: Runner) -> str:
    """What to say of an attempt to save the state; nothing if the process saves nothing."""
    checkpoint = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    if checkpoint is None or runner.rank != 0 or not runner.iter:
        return ''
    try:
        path = checkpoint.save_now(runner, runner.iter, alone=runner.distributed)
    except UserError as error:
        return f'; iteration {runner.iter} could not be saved ({error})'
    return f'; the state after iteration {runner.iter} is saved to {path}, go on with --resume'


def _file_error(runner: Runner, error: OSError) -> str:
    work_dir = Path(runner.work_dir)
    if error.errno == errno.ENOENT and not work_dir.is_dir():
        return f'the work dir {work_dir} was removed, or its disk is gone; the training has ended with it'
    place = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else f'a file in {work_dir}'
    cure = 'free some space and continue with --resume' if error.errno in FULL else 'continue with --resume'
    return f'{place}: {error.strerror} in iteration {runner.iter + 1}; {cure}'
