"""Ctrl-C and the signals of clusters: finish the iteration, save, and print the command that resumes."""

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, NoReturn, Optional

import torch
import torch.distributed as dist
from mmengine.device import get_device
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner

from mixdet.engine.checkpoint_hook import CheckpointHook
from mixdet.engine.launch import resume_command
from mixdet.engine.signals import SignalWatch
from mixdet.engine.wrappers import optim_wrappers
from mixdet.errors import UserError
from mixdet.registry import HOOKS
from mixdet.text import print

# exit status by signal: Ctrl-C; a cluster's end; a lost terminal; Slurm's --signal=USR1. Windows lacks the last two
STATUS: dict[int, int] = {signal.SIGINT: 0}
STATUS.update({n: 128 + n for name in ('SIGTERM', 'SIGHUP', 'SIGUSR1') if (n := getattr(signal, name, None))})
REPEAT = 3.0  # s within which several processes take a signal that comes twice for one
SAVING = 60.0  # s that the last save of a process may take


@HOOKS.register_module()
class InterruptHook(Hook):
    """Ends a training on a signal after the iteration, with a checkpoint; needs ``mixdet.CheckpointHook``.

    The signals are SIGINT (Ctrl-C), SIGTERM, SIGHUP (a lost terminal) and SIGUSR1 (Slurm's ``--signal``), but for those
    that were ignored when the training began, as by ``nohup``. The exit status is 0 after Ctrl-C, else 128 and the
    signal's number. The command is printed that resumes the run exactly where it stopped. A second signal ends the run
    at once. During a validation the state before the validation is saved.

    Several processes all stop after the same iteration, whichever received the signal. One that still waits for another
    ``grace`` seconds later ends nevertheless; the first process saves before, which is not exact: averages of
    batch-norm and random generators may be a few steps ahead.

    Args:
        grace: seconds that several processes have to finish an iteration or a validation. torchrun kills its processes
            after 30.
    """

    priority = 'LOWEST'  # the other hooks have finished the iteration when it is saved

    def __init__(self, grace: float = 15.0) -> None:
        self.grace = grace
        self._signal = 0  # the first that was received
        self._since = 0.0  # when
        self._handlers: dict[int, Any] = {}  # by signal, those that were set before the training
        self._watch: Optional[SignalWatch] = None
        self._gate = threading.Lock()  # held while the weights must not change
        self._done: Optional[int] = None  # iterations after which the weights are as they are; None within a step
        self._validating = False
        self._repeat = 0.0  # s within which a second signal is no other request
        self._removable: list = []

    def before_train(self, runner: Runner) -> None:
        """Handle the signals; only the main thread can."""
        checkpoint = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        if checkpoint is None:
            runner.logger.warning(
                'InterruptHook does nothing: default_hooks.checkpoint is not of type mixdet.CheckpointHook'
            )
        elif threading.current_thread() is threading.main_thread():
            self._checkpoint = checkpoint
            self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
            # a shell's background jobs ignore Ctrl-C; who sends it to one means it
            taken = [n for n in STATUS if n == signal.SIGINT or signal.getsignal(n) not in (signal.SIG_IGN, None)]
            self._handlers = {number: signal.signal(number, self._receive) for number in taken}
            if runner.distributed:
                self._begin_watch(runner)

    def _begin_watch(self, runner: Runner) -> None:
        self._done, self._repeat = runner.iter, REPEAT
        self._removable = [
            wrapper.optimizer.register_step_pre_hook(lambda *_: self._begin_step())
            for wrapper in optim_wrappers(runner.optim_wrapper)
        ]
        self._watch = SignalWatch(self._handlers, self.grace, REPEAT, lambda number: self._leave_alone(runner, number))
        self._watch.start()

    def _receive(self, number: int, frame: Optional[FrameType]) -> None:
        if self._signal:
            if time.monotonic() - self._since < self._repeat:
                return
            raise KeyboardInterrupt
        self._signal, self._since = number, time.monotonic()
        for descriptor in self._terminals:
            if not os.isatty(descriptor):  # it is gone, and every print would fail
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        name = signal.Signals(number).name
        print(f'{name}: stopping after this iteration; again to stop at once', file=sys.stderr, flush=True)

    def _begin_step(self) -> None:
        with self._gate:
            self._done = None

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop if a signal was received."""
        self._done = runner.iter + 1
        if self._signalled(runner):
            self._leave(runner, runner.iter + 1)

    def before_val_epoch(self, runner: Runner) -> None:
        """Note that other hooks may have changed the weights for the validation."""
        self._validating = True

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Note that they have changed them back."""
        self._validating = False

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop if a signal was received; the resumed run repeats the validation."""
        if self._signalled(runner):
            _end_validation(runner)
            self._leave(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Restore the handlers that were set before the training."""
        self._end_watch()
        for hook in self._removable:
            hook.remove()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers, self._removable = {}, []

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

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
        self._end_watch()  # all processes have come this far, and a disk may take its time
        path = self._checkpoint.save_now(runner, done)
        if runner.rank == 0:
            name = signal.Signals(self._signal).name
            print(f'{name}: stopped after iteration {done} of {runner.max_iters}, saved {path}')
            print(f'resume with: {resume_command(sys.argv)}', flush=True)
        self.after_train(runner)
        raise SystemExit(STATUS[self._signal])

    def _leave_alone(self, runner: Runner, number: int) -> None:
        """End this process, which waits for another one; in a thread of the watch."""
        with self._gate:
            name = signal.Signals(number).name
            print(f'{name}: process {runner.rank} still waits for another after {self.grace:g} s', file=sys.stderr)
            if runner.rank == 0:
                saving = threading.Thread(target=self._save_alone, args=(runner, name), daemon=True)
                saving.start()
                saving.join(SAVING)
                print(f'resume with: {resume_command(sys.argv)}')
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):
                    stream.flush()
            os._exit(STATUS[number] or 128 + number)

    def _save_alone(self, runner: Runner, name: str) -> None:
        if self._done is None:
            print(f'{name}: the weights were being changed and are not saved; the last checkpoint is whole')
            return
        try:
            if self._validating:
                _end_validation(runner)
            path = self._checkpoint.save_now(runner, self._done, alone=True)
            print(f'{name}: stopped after iteration {self._done} of {runner.max_iters}, saved {path}')
        except (UserError, RuntimeError) as error:
            print(f'{name}: not saved: {error}; the last checkpoint is whole')


def _end_validation(runner: Runner) -> None:
    """Put the trained weights back, in whose place a validation has the averaged ones."""
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            hook.after_val_epoch(runner)
