"""Trainings whose main thread waits as in compiled code, where no handler of a signal runs, when SIGTERM comes.

``python stuck_training.py FOLDER`` prints the status and the output of each as JSON. It has an interpreter of its own,
since a fork of one that has trained cannot train.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import forked
import mmengine.runner
from mmengine.hooks import Hook
from tiny_training import BATCHES, config, train

from mixdet.engine import InterruptHook

# where each waits, and which of two processes it is
CASES = {'iteration': 0, 'step': 0, 'validation': 0, 'second process': 1}
WAITS = {'step': 'after_train_iter', 'validation': 'before_val_iter'}


class Stuck(Hook):
    """Waits in iteration 5 or the first validation; the signal is received by another thread."""

    priority = 'LOW'

    def __init__(self, case: str) -> None:
        setattr(self, WAITS.get(case, 'before_train_iter'), self.wait)
        self.at = BATCHES if case == 'validation' else 5

    def wait(self, runner, **kwargs):
        if runner.iter == self.at:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)


class OneOfTwo(InterruptHook):
    """The hook of one of two processes."""

    def __init__(self, rank: int) -> None:
        super().__init__(grace=0.1)
        self.rank = rank

    def before_train(self, runner):
        super().before_train(runner)
        self._begin_watch(runner)
        runner._rank = self.rank


def main(folder: Path) -> None:
    mmengine.runner.Runner._log_env = lambda *args: None
    ends = {}
    for case, rank in CASES.items():
        cfg = config(folder / case, interval=100, ema=True)
        hooks = [OneOfTwo(rank), Stuck(case)]
        ends[case] = forked.run(lambda cfg=cfg, hooks=hooks: train(cfg, hooks=hooks), folder / f'{case}.txt')
    print(json.dumps(ends))


if __name__ == '__main__':
    main(Path(sys.argv[1]))
