import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from tiny_training import BATCHES, config, difference, log_lines, outcome, train

from mixdet.engine import InterruptHook
from mixdet.engine.interrupt import STATUS, resume_command

pytestmark = pytest.mark.slow


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


def test_a_second_signal_ends_the_run_at_once(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path), hooks=[InterruptHook(), Send(signal.SIGINT, 5, times=2)])
    assert not list(tmp_path.glob('interrupted*'))
    assert capsys.readouterr().err == 'SIGINT: stopping after this iteration; again to stop at once\n'


def test_the_command_is_the_one_given_with_resume():
    assert resume_command(['tools/train.py', 'a b.py', '--amp']) == "python tools/train.py 'a b.py' --amp --resume"
    assert resume_command(['train.py', 'c.py', '--resume', 'x.pth', '--amp']) == 'python train.py c.py --amp --resume'
    assert resume_command(['train.py', 'c.py', '--resume', '--new-schedule']) == 'python train.py c.py --resume'
    assert resume_command(['train.py', 'c.py', '--resume=x.pth']) == 'python train.py c.py --resume'


def test_the_default_command_is_quoted():
    assert resume_command(['train.py', 'c.py', '--resume', '--amp']) == 'python train.py c.py --amp --resume'
    assert resume_command(['train.py', 'a.pth']) == 'python train.py a.pth --resume'


def test_signals_are_not_taken_without_a_checkpoint_hook(tmp_path, handlers, monkeypatch):
    cfg = config(tmp_path)
    cfg.default_hooks.checkpoint.type = 'CheckpointHook'
    seen = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *args, **kwargs: seen.append(text))
    hook = InterruptHook()
    train(cfg, hooks=[hook, Handlers(seen)])
    assert [text for text in seen if 'InterruptHook does nothing' in str(text)]
    assert handlers in seen and not hook._handlers


def test_signals_are_not_taken_outside_the_main_thread(tmp_path, handlers):
    seen = []
    thread = threading.Thread(target=lambda: train(config(tmp_path), hooks=[InterruptHook(), Handlers(seen)]))
    thread.start()
    thread.join()
    assert seen == [handlers]


class Handlers(Hook):
    """Notes the signals' handlers in the first iteration."""

    def __init__(self, seen):
        self.seen = seen

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 0:
            self.seen.append({number: signal.getsignal(number) for number in STATUS})


def test_all_processes_stop_if_one_was_signalled(capsys, monkeypatch):
    def receive(number, operation):
        assert operation == dist.ReduceOp.MAX
        number.fill_(max(int(number), received.pop(0)))

    monkeypatch.setattr(dist, 'all_reduce', receive)
    saved = []
    checkpoint = SimpleNamespace(save_now=lambda runner, done: saved.append(done) or 'a.pth')
    for rank, received in ((0, [0, signal.SIGTERM]), (1, [0, signal.SIGTERM])):
        hook = InterruptHook()
        hook._checkpoint, hook._handlers = checkpoint, {signal.SIGTERM: signal.getsignal(signal.SIGTERM)}
        runner = SimpleNamespace(distributed=True, iter=4, max_iters=12, rank=rank)
        hook.after_train_iter(runner, 0)
        with pytest.raises(SystemExit) as stop:
            hook.after_train_iter(runner, 0)
        assert stop.value.code == 143 and received == []
    assert saved == [5, 5]
    assert capsys.readouterr().out.count('SIGTERM: stopped after iteration 5 of 12, saved a.pth') == 1
