import os
import signal
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from tiny_training import BATCHES, config, difference, log_lines, outcome, train

from mixdet.engine import InterruptHook
from mixdet.engine.interrupt import STATUS, resume_command


@pytest.fixture(autouse=True)
def short_start(monkeypatch):
    monkeypatch.setattr('mmengine.runner.Runner._log_env', lambda *args: None)


@pytest.fixture(autouse=True)
def handlers():
    """The handlers of signals, which a run that ends at once leaves changed, are restored after each test."""
    before = {number: signal.getsignal(number) for number in STATUS}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


class Send(Hook):
    """Sends a signal to this process in an iteration of the training, or of a validation."""

    def __init__(self, number, at, validation=False, times=1):
        self.number, self.at, self.times = number, at, times
        name = 'before_val_iter' if validation else 'before_train_iter'
        setattr(self, name, self.send)

    def send(self, runner, **kwargs):
        if runner.iter == self.at:
            self.at = None
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


CASES = {
    'Ctrl-C within an epoch': (signal.SIGINT, 5, False, 0),
    'SIGTERM with gradients accumulated': (signal.SIGTERM, 6, False, 143),
    'Ctrl-C in the last iteration of an epoch': (signal.SIGINT, 7, False, 0),
    'SIGTERM in a validation of averaged weights': (signal.SIGTERM, 8, True, 143),
}


@pytest.mark.parametrize('loop', ['epoch', 'iteration'])
@pytest.mark.parametrize('case', CASES)
def test_the_resumed_run_continues_as_if_it_had_not_stopped(tmp_path, capsys, handlers, case, loop):
    number, at, validation, status = CASES[case]
    settings = dict(by_epoch=loop == 'epoch', ema=True, accumulate=2, interval=100, workers=2 if at == 5 else 0)
    expected = outcome(train(config(tmp_path / 'whole', **settings)))
    with pytest.raises(SystemExit) as stop:
        train(config(tmp_path / 'a', **settings), hooks=[InterruptHook(), Send(number, at, validation)])
    assert stop.value.code == status and signal.getsignal(number) == handlers[number]
    done = at + (not validation)
    path = tmp_path / f'a/interrupted_iter_{done}.pth'
    printed = capsys.readouterr().out
    assert f'stopped after iteration {done} of {3 * BATCHES}, saved {path}' in printed
    assert printed.splitlines()[-1].startswith('resume with: python ') and printed.endswith(' --resume\n')
    assert Path(tmp_path, 'a/last_checkpoint').read_text() == str(path)
    resumed = train(config(tmp_path / 'a', **settings), resume=True)
    assert difference(outcome(resumed), expected) == 0.0
    assert log_lines(tmp_path / 'a') == log_lines(tmp_path / 'whole')
    assert not path.exists()  # a regular checkpoint has taken its place


def test_a_second_signal_ends_the_run_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path), hooks=[InterruptHook(), Send(signal.SIGINT, 5, times=2)])
    assert not list(tmp_path.glob('interrupted*'))


def test_the_command_is_the_one_given_with_resume():
    assert resume_command(['tools/train.py', 'a b.py', '--amp']) == "python tools/train.py 'a b.py' --amp --resume"
    assert resume_command(['train.py', 'c.py', '--resume', 'x.pth', '--amp']) == 'python train.py c.py --amp --resume'
    assert resume_command(['train.py', 'c.py', '--resume=x.pth']) == 'python train.py c.py --resume'
