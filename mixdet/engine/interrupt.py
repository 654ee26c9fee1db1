"""Ctrl-C and a cluster's SIGTERM: finish the iteration, save, and print the command that resumes."""

import shlex
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn, Optional

import torch
import torch.distributed as dist
from mmengine.device import get_device
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner

from mixdet.engine.checkpoint_hook import CheckpointHook
from mixdet.registry import HOOKS
from mixdet.text import print

STATUS: dict[int, int] = {signal.SIGINT: 0, signal.SIGTERM: 128 + signal.SIGTERM}  # exit status by signal


@HOOKS.register_module()
class InterruptHook(Hook):
    """Ends a training on SIGINT or SIGTERM after the iteration, with a checkpoint; needs ``mixdet.CheckpointHook``.

    Exits with status 0 (Ctrl-C) or 143 (SIGTERM) and prints the command that resumes the run exactly where it stopped.
    A second signal ends the run at once. During a validation the state before the validation is saved. With several
    processes all of them stop after the same iteration, whichever received the signal.
    """

    priority = 'LOWEST'  # the other hooks have finished the iteration when it is saved

    def __init__(self) -> None:
        self._signal = 0  # the first that was received
        self._handlers: dict[int, Any] = {}  # by signal, those that were set before the training

    def before_train(self, runner: Runner) -> None:
        """Handle the signals; only the main thread can."""
        checkpoint = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        if checkpoint is None:
            runner.logger.warning(
                'InterruptHook does nothing: default_hooks.checkpoint is not of type mixdet.CheckpointHook'
            )
        elif threading.current_thread() is threading.main_thread():
            self._checkpoint = checkpoint
            self._handlers = {number: signal.signal(number, self._receive) for number in STATUS}

    def _receive(self, number: int, frame: Optional[FrameType]) -> None:
        if self._signal:
            raise KeyboardInterrupt
        self._signal = number
        name = signal.Signals(number).name
        print(f'{name}: stopping after this iteration; again to stop at once', file=sys.stderr, flush=True)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop if a signal was received."""
        if self._signalled(runner):
            self._leave(runner, runner.iter + 1)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop if a signal was received; the resumed run repeats the validation."""
        if self._signalled(runner):
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # a validation has the averaged weights in place of the trained ones
                    hook.after_val_epoch(runner)
            self._leave(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Restore the handlers that were set before the training."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _signalled(self, runner: Runner) -> bool:
        """Whether any of the processes has received a signal; asked by all of them together."""
        if not self._handlers:
            return False
        if runner.distributed:
            number = torch.tensor(self._signal, device=get_device())
            dist.all_reduce(number, dist.ReduceOp.MAX)
            self._signal = int(number)
        return self._signal > 0

    def _leave(self, runner: Runner, done: int) -> NoReturn:
        path = self._checkpoint.save_now(runner, done)
        if runner.rank == 0:
            name = signal.Signals(self._signal).name
            print(f'{name}: stopped after iteration {done} of {runner.max_iters}, saved {path}')
            print(f'resume with: {resume_command(sys.argv)}', flush=True)
        self.after_train(runner)
        raise SystemExit(STATUS[self._signal])


def resume_command(argv: list[str]) -> str:
    """The command ``argv`` with ``--resume`` from the latest checkpoint, which has the new schedule by then."""
    kept = [
        word
        for before, word in zip(['', *argv], argv)
        if not word.startswith(('--resume', '--new-schedule')) and not (before == '--resume' and word.endswith('.pth'))
    ]
    return shlex.join(['python', *kept, '--resume'])
