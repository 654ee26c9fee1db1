"""Ctrl-C and a cluster's SIGTERM: finish the iteration, save, and say how to go on."""

import shlex
import signal
import sys
import threading
from types import FrameType
from typing import Optional

import torch
import torch.distributed as dist
from mmengine.device import get_device
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner

from mixdet.engine.checkpoint_hook import CheckpointHook
from mixdet.registry import HOOKS

STATUS = {signal.SIGINT: 0, signal.SIGTERM: 128 + signal.SIGTERM}


@HOOKS.register_module()
class InterruptHook(Hook):
    """Ends a training on SIGINT or SIGTERM after the iteration, with a checkpoint; needs ``mixdet.CheckpointHook``.

    Exits with status 0 (Ctrl-C) or 143 (SIGTERM) and prints the command that resumes the run exactly where it stopped.
    A second signal ends the run at once. During validation the training is saved as it was before. With several
    processes all of them stop after the same iteration, whichever was signalled.
    """

    priority = 'LOWEST'  # the other hooks' part of the iteration is done before it is saved

    def __init__(self) -> None:
        self._signal: Optional[int] = None
        self._before: dict = {}

    def before_train(self, runner: Runner) -> None:
        """Take over the signals; a thread other than the main one cannot."""
        self._checkpoint = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        if self._checkpoint is None:
            runner.logger.warning('InterruptHook does nothing: default_hooks.checkpoint is no mixdet.CheckpointHook')
        elif threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STATUS}

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        if self._signal is not None:
            raise KeyboardInterrupt
        self._signal = number
        name = signal.Signals(number).name
        print(f'{name}: stopping after this iteration; again to stop at once', file=sys.stderr, flush=True)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Stop if it was asked for."""
        if self._stop(runner):
            self._leave(runner, runner.iter + 1)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Stop if it was asked for; the validation is done again by the run that resumes."""
        if self._before and self._stop(runner):
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # it validates the averaged weights in the place of the trained ones
                    hook.after_val_epoch(runner)
            self._leave(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Hand the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _stop(self, runner: Runner) -> bool:
        if runner.distributed:
            flag = torch.tensor(self._signal or 0, device=get_device())
            dist.all_reduce(flag, dist.ReduceOp.MAX)
            self._signal = int(flag) or None
        return self._signal is not None and self._checkpoint is not None

    def _leave(self, runner: Runner, done: int) -> None:
        path = self._checkpoint.save_now(runner, done)
        if runner.rank == 0:
            name = signal.Signals(self._signal).name
            print(f'{name}: stopped after iteration {done} of {runner.max_iters}, saved {path}')
            print(f'go on with: {resume_command(sys.argv)}', flush=True)
        self.after_train(runner)
        raise SystemExit(STATUS[self._signal])


def resume_command(argv: list[str]) -> str:
    """The command that was given, with ``--resume`` from the latest checkpoint."""
    kept = [
        word
        for before, word in zip(['', *argv], argv)
        if not word.startswith('--resume') and not (before == '--resume' and word.endswith('.pth'))
    ]
    return shlex.join(['python', *kept, '--resume'])
