"""Trainings that end from outside: one line, and the state saved where it is whole."""

import errno
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.visualization import LocalVisBackend
from tiny_training import TinyDataset, config, difference, outcome
from tiny_training import train as train_with_mmengine
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from mixdet.engine import Runner
from mixdet.engine.checkpoint_hook import CheckpointHook
from mixdet.errors import UserError

QUICK = dict(interval=100)  # no regular checkpoint


@pytest.fixture(autouse=True)
def short_start(monkeypatch):
    monkeypatch.setattr('mmengine.runner.Runner._log_env', lambda *args: None)


def train(cfg, *hooks):
    """Train with mixdet's Runner, which is returned."""
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    try:
        runner.train()
    finally:
        for loop in (runner.train_loop, runner.val_loop):
            vars(loop).pop('dataloader_iterator', None)
            loop.dataloader._iterator = None
    return runner


class Before(Hook):
    """Calls ``act`` before iteration ``at``."""

    def __init__(self, at, act):
        self.at, self.act = at, act

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.at:
            self.act()


def fail_at(monkeypatch, number, error):
    """Image ``number`` cannot be loaded."""
    load = TinyDataset.prepare_data

    def broken(self, index):
        if index == number:
            raise error
        return load(self, index)

    monkeypatch.setattr(TinyDataset, 'prepare_data', broken)


def kill_worker():
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != 'linux', reason='workers are forked')
@pytest.mark.parametrize('by_epoch', [True, False])
def test_what_was_reached_is_saved_when_a_worker_is_killed(tmp_path, monkeypatch, by_epoch):
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, '__defaults__', (0.2,))  # s; else 5
    expected = outcome(train_with_mmengine(config(tmp_path / 'whole', by_epoch=by_epoch, **QUICK)))
    with pytest.raises(UserError) as raised:  # the worker has two batches ready at most
        train(config(tmp_path / 'a', workers=1, by_epoch=by_epoch, **QUICK), Before(4, kill_worker))
    (saved,) = (tmp_path / 'a').glob('interrupted_iter_*.pth')
    assert saved.stem in {f'interrupted_iter_{done}' for done in (5, 6, 7)}
    done = saved.stem.rpartition('_')[2]
    assert str(raised.value) == (
        'a worker of the data loader was killed (SIGKILL), as the system does when memory runs out; use fewer '
        f'num_workers or a smaller batch_size; the state after iteration {done} is saved to {saved}, go on with '
        '--resume'
    )
    resumed = train_with_mmengine(config(tmp_path / 'a', by_epoch=by_epoch, **QUICK), resume=True)
    assert difference(outcome(resumed), expected) == 0.0


def test_an_image_that_cannot_be_loaded_any_more_loses_nothing(tmp_path, monkeypatch):
    expected = outcome(train_with_mmengine(config(tmp_path / 'whole', **QUICK)))
    broken = config(tmp_path / 'a', **QUICK)
    broken.train_dataloader.batch_size = 1
    expected = outcome(train_with_mmengine(with_batches_of_one(config(tmp_path / 'one', **QUICK))))
    with monkeypatch.context() as patch:
        fail_at(patch, 5, UserError('image a.png is empty'))
        with pytest.raises(UserError, match=r'^image a.png is empty; the state after iteration \d+ is saved to'):
            train(broken)
    resumed = train_with_mmengine(with_batches_of_one(config(tmp_path / 'a', **QUICK)), resume=True)
    assert difference(outcome(resumed), expected) == 0.0


def with_batches_of_one(cfg):
    cfg.train_dataloader.batch_size = 1
    return cfg


def test_a_bug_keeps_its_traceback_and_loses_nothing(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *args: warnings.append(text))
    fail_at(monkeypatch, 5, ZeroDivisionError('a bug'))
    with pytest.raises(ZeroDivisionError):
        train(with_batches_of_one(config(tmp_path, **QUICK)))
    assert warnings[-1].startswith('ZeroDivisionError: a bug; the state after iteration')


def test_nothing_half_done_is_saved(tmp_path):
    def fail():
        raise UserError('in the middle')

    with pytest.raises(UserError, match='^in the middle$'):
        train(config(tmp_path, **QUICK), Before(5, fail))
    assert not list(tmp_path.glob('*.pth'))


def test_a_disk_too_full_for_that_is_said(tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise UserError('no space')

    monkeypatch.setattr(CheckpointHook, 'save_now', full)
    fail_at(monkeypatch, 5, UserError('image a.png is empty'))
    with pytest.raises(UserError, match=r'^image a.png is empty; iteration \d+ could not be saved .no space.$'):
        train(with_batches_of_one(config(tmp_path, **QUICK)))


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (OSError(errno.ENOSPC, 'No space left on device'), 'a file in {}: No space left on device in iteration 4;'),
        (OSError(errno.EIO, 'Input/output error', 'x.json'), 'x.json: Input/output error in iteration 4;'),
    ],
)
def test_a_log_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, error, line):
    dump = LocalVisBackend._dump

    def full(self, values, path, kind):
        if values['step'] == 4:
            raise error
        dump(self, values, path, kind)

    monkeypatch.setattr(LocalVisBackend, '_dump', full)
    with pytest.raises(UserError, match=f'^{line.format(tmp_path)} '):
        train(config(tmp_path))
    assert (tmp_path / 'iter_3.pth').exists()


def test_a_work_dir_that_is_removed_is_one_line(tmp_path):
    work_dir = tmp_path / 'a'
    with pytest.raises(UserError, match=f'work dir {work_dir} was removed, or its disk is gone'):
        train(config(work_dir), Before(4, lambda: shutil.rmtree(work_dir)))
    assert not Path(work_dir, 'iter_6.pth').exists()


def test_errors_of_connections_and_of_programs_stay(tmp_path):
    for error in (ConnectionResetError(errno.ECONNRESET, 'reset'), OSError('a bug')):

        def fail(error=error):
            raise error

        with pytest.raises(type(error), match=str(error).partition('] ')[2] or 'a bug'):
            train(config(tmp_path, **QUICK), Before(1, fail))
