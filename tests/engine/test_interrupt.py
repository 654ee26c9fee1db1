import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from tiny_training import BATCHES, config, difference, log_lines, outcome, train

from mixdet.engine import InterruptHook
from mixdet.engine.checkpoint import read_checkpoint
from mixdet.engine.interrupt import STATUS

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


@pytest.mark.skipif(sys.platform == 'win32', reason='signals of POSIX')
@pytest.mark.parametrize(('name', 'status'), [('SIGHUP', 129), ('SIGUSR1', 138)])
def test_a_lost_terminal_and_a_clusters_warning_save_too(tmp_path, capsys, name, status):
    with pytest.raises(SystemExit) as stop:
        train(config(tmp_path, interval=100), hooks=[InterruptHook(), Send(getattr(signal, name), 2)])
    assert stop.value.code == status and (tmp_path / 'interrupted_iter_3.pth').exists()
    assert f'{name}: stopped after iteration 3 of' in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == 'win32', reason='signals of POSIX')
def test_a_signal_that_nohup_ignores_stays_ignored(tmp_path, handlers):
    for number in set(STATUS) - {signal.SIGINT}:
        signal.signal(number, signal.SIG_IGN)
    hook, seen = InterruptHook(), []
    runner = train(config(tmp_path, interval=100), hooks=[hook, Handlers(seen), Send(signal.SIGHUP, 2)])
    assert runner.iter == 3 * BATCHES and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert seen[0] == {**dict.fromkeys(STATUS, signal.SIG_IGN), signal.SIGINT: hook._receive}


@pytest.mark.skipif(sys.platform != 'linux', reason='terminals of POSIX')
def test_a_terminal_that_is_gone_takes_nothing_with_it(monkeypatch):
    ours, theirs = os.openpty()
    hook = InterruptHook()
    hook._terminals = [theirs]
    os.close(ours)
    with pytest.raises(OSError, match='Input/output error'):
        os.write(theirs, b'x')
    hook._receive(signal.SIGHUP, None)
    assert os.write(theirs, b'x') == 1
    os.close(theirs)


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


@pytest.mark.skipif(sys.platform != 'linux', reason='forks')
def test_a_process_that_waits_for_another_saves_what_is_whole_and_ends(tmp_path):
    script = Path(__file__).resolve().parents[1] / 'stuck_training.py'
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=600)
    ends = json.loads(done.stdout.splitlines()[-1])
    assert {status for status, _ in ends.values()} == {143}, ends
    printed = {case: text for case, (_, text) in ends.items()}
    for case, text in printed.items():
        rank = int(case == 'second process')
        assert f'SIGTERM: process {rank} still waits for another after 0.1 s' in text
        assert ('resume with: python ' in text) == (rank == 0)
    saved = {path.parent.name: path for path in tmp_path.glob('*/interrupted*')}
    assert saved == {
        'iteration': tmp_path / 'iteration/interrupted_iter_5.pth',
        'validation': tmp_path / 'validation/interrupted_iter_4.pth',
    }
    for case, path in saved.items():
        iteration = path.stem.rpartition('_')[2]
        assert f'SIGTERM: stopped after iteration {iteration} of 12, saved {path}' in printed[case]
        content = read_checkpoint(path)
        assert content['mixdet_state']['processes'] == [] and content['meta']['iter'] == int(iteration)
    assert 'the weights were being changed and are not saved; the last checkpoint is whole' in printed['step']
    # in a validation the trained weights are saved, in whose place it has the averaged ones
    train(config(tmp_path / 'whole', interval=4, max_keep_ckpts=-1, ema=True), kill_at=5)
    trained = read_checkpoint(tmp_path / 'whole/iter_4.pth')['state_dict']
    weights = read_checkpoint(saved['validation'])['state_dict']
    assert all(torch.equal(weights[name], trained[name]) for name in trained)
    log = next(Path(train(config(tmp_path / 'iteration', ema=True), resume=True).log_dir).glob('*.log'))
    assert 'one process saved this checkpoint without the others' in log.read_text()


def test_several_processes_take_a_signal_that_torchrun_passes_on_for_one(capsys):
    hook = InterruptHook()
    hook._terminals, hook._repeat = [], 600.0
    hook._receive(signal.SIGTERM, None)
    hook._receive(signal.SIGTERM, None)
    hook._since -= 601
    with pytest.raises(KeyboardInterrupt):
        hook._receive(signal.SIGTERM, None)
    assert capsys.readouterr().err.count('stopping after this iteration') == 1
