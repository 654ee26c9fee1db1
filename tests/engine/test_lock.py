"""The lock on a work dir: held by the living, not kept by the dead, known by copies and other machines."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from forked import end_of, fork
from tiny_training import config, train

from mixdet.engine import lock as module
from mixdet.engine.lock import LOCK, FolderLock, check_free, lock_folders
from mixdet.errors import UserError

linux = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')


@pytest.fixture
def said():
    return []


@pytest.fixture
def quick(monkeypatch):
    """Holders on other machines are waited for no longer than a moment."""
    for name, seconds in (('SILENCE', 0.2), ('POLL', 0.02), ('SETTLING', 0.2)):
        monkeypatch.setattr(module, name, seconds)


class Other:
    """A process that holds the lock of ``folder`` until it is killed."""

    def __init__(self, folder):
        ready, told = os.pipe()

        def hold():
            FolderLock(folder, print).acquire()
            os.write(told, b'.')
            signal.pause()

        self.pid = fork(hold)
        os.read(ready, 1)
        os.close(ready)
        os.close(told)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        assert end_of(self.pid) == -signal.SIGKILL


def written(folder, **changes):
    """The lock's file as a process left it that could not release it."""
    held = FolderLock(folder, print)
    held.acquire()
    held.release()
    path = folder / LOCK
    path.touch()
    holder = held._holder._replace(inode=path.stat().st_ino, **changes)
    path.write_text(json.dumps(holder._asdict()))
    return path


@linux
def test_a_running_holder_is_named_and_a_killed_one_does_not_keep_the_lock(tmp_path, said):
    holder = Other(tmp_path)
    lock = FolderLock(tmp_path, said.append)
    refused = f'^{tmp_path} is in use by another training .process {holder.pid} on .*; wait for it, stop it, or set'
    with pytest.raises(UserError, match=refused):
        lock.acquire()
    with pytest.raises(UserError, match=refused):
        check_free(tmp_path)
    shutil.copytree(tmp_path, tmp_path / 'copy')
    check_free(tmp_path / 'copy')
    other = FolderLock(tmp_path / 'copy', said.append)
    other.acquire()  # in a copy nobody holds it
    other.release()
    assert said == []
    holder.kill()
    check_free(tmp_path)
    lock.acquire()
    (text,) = said
    assert text.startswith(f'the training that held {tmp_path} is dead (process {holder.pid} on ')
    lock.release()
    assert not (tmp_path / LOCK).exists()


@linux
@pytest.mark.parametrize('change', [dict(pid=2**22 + 1), dict(start='1')])  # no such process; its number used again
def test_a_dead_holder_of_this_machine_is_recognised(tmp_path, said, change):
    written(tmp_path, **change)
    lock = FolderLock(tmp_path, said.append)
    lock.acquire()
    assert 'is dead' in said[0]
    lock.release()


def test_a_silent_holder_on_another_machine_is_taken_for_dead(tmp_path, said, quick):
    written(tmp_path, place='another boot', host='node7')
    lock = FolderLock(tmp_path, said.append)
    lock.acquire()
    assert 'waiting up to' in said[0] and 'node7' in said[0] and 'is dead' in said[1]
    lock.release()


def test_a_holder_on_another_machine_shows_that_it_lives(tmp_path, said, quick, monkeypatch):
    path = written(tmp_path, place='another boot', host='node7')
    monkeypatch.setattr(module.time, 'sleep', lambda seconds: os.utime(path))
    with pytest.raises(UserError, match='is in use by another training .process .* on node7'):
        FolderLock(tmp_path, said.append).acquire()


def test_without_locks_of_the_kernel_the_names_are_enough(tmp_path, said, quick, monkeypatch):
    monkeypatch.setattr(module, 'fcntl', None)
    monkeypatch.setattr(module, 'place', lambda: '')
    written(tmp_path, host='node7')
    lock = FolderLock(tmp_path, said.append)
    lock.acquire()
    assert 'is dead' in said[1]
    lock.release()


@linux
def test_a_lock_that_its_silent_holder_keeps_is_left_to_the_user(tmp_path, said, quick):
    holder = Other(tmp_path)
    path = tmp_path / LOCK
    path.write_text(json.dumps({**json.loads(path.read_text()), 'place': 'another container'}))
    with pytest.raises(UserError, match=f'has given no sign of life for .*; if it is dead, remove {path}'):
        FolderLock(tmp_path, said.append).acquire()
    path.write_text('')
    with pytest.raises(UserError, match='which does not say its name'):
        FolderLock(tmp_path, said.append).acquire()
    holder.kill()


def test_the_holder_gives_signs_of_life(tmp_path, said, monkeypatch):
    monkeypatch.setattr(module, 'BEAT', 0.01)
    lock = FolderLock(tmp_path, said.append)
    lock.acquire()
    os.utime(tmp_path / LOCK, ns=(0, 0))
    while not (tmp_path / LOCK).stat().st_mtime_ns:
        time.sleep(0.01)
    lock.release()


def test_a_holder_that_was_taken_for_dead_changes_nothing_any_more(tmp_path, said):
    lock = FolderLock(tmp_path, said.append)
    lock.acquire()
    lock.check()
    path = tmp_path / LOCK
    path.write_text(json.dumps({**json.loads(path.read_text()), 'host': 'node7'}))
    with pytest.raises(UserError, match='was taken over by another training .process .* on node7'):
        lock.check()
    assert path.exists()  # it is the other's


def test_a_lock_that_was_removed_is_taken_again(tmp_path, said):
    lock = FolderLock(tmp_path, said.append)
    lock.acquire()
    (tmp_path / LOCK).unlink()
    lock.check()
    assert (tmp_path / LOCK).exists()
    shutil.rmtree(tmp_path)
    with pytest.raises(UserError, match=f'work dir {tmp_path} was removed, or its disk is gone'):
        lock.check()
    lock.release()
    tmp_path.mkdir()


@pytest.mark.parametrize('content', [b'', b'\xff\x00', b'{', b'[]', b'{"host": 1}', b'9' * 5000])
def test_a_file_that_names_nobody_is_no_lock(tmp_path, said, content):
    (tmp_path / LOCK).write_bytes(content)
    lock = FolderLock(tmp_path, said.append)
    lock.acquire()
    assert said == []
    lock.release()


@pytest.mark.skipif(not hasattr(os, 'O_NOFOLLOW'), reason='needs O_NOFOLLOW')
def test_a_link_in_its_place_is_not_followed(tmp_path, said):
    (tmp_path / 'mine').write_text('kept')
    (tmp_path / LOCK).symlink_to(tmp_path / 'mine')
    with pytest.raises(UserError, match='checkpoints cannot be written to'):
        FolderLock(tmp_path, said.append).acquire()
    assert (tmp_path / 'mine').read_text() == 'kept'


@linux
def test_all_folders_are_locked_or_none(tmp_path, said):
    holder = Other(tmp_path)
    with pytest.raises(UserError, match='is in use|waiting'):
        lock_folders([tmp_path / 'a', tmp_path], said.append)
    assert not (tmp_path / 'a' / LOCK).exists()
    holder.kill()


def test_the_other_processes_of_a_training_hear_of_it(tmp_path, said, monkeypatch):
    monkeypatch.setattr(module, 'is_main_process', lambda: False)
    monkeypatch.setattr(module, 'broadcast_object_list', lambda problem: problem.__setitem__(0, 'in use'))
    with pytest.raises(UserError, match='^in use$'):
        lock_folders([tmp_path], said.append)
    monkeypatch.setattr(module, 'broadcast_object_list', lambda problem: None)
    assert lock_folders([tmp_path], said.append) == [] and not os.listdir(tmp_path)


@linux
def test_a_process_that_was_forked_does_not_hold_it(tmp_path, said):
    lock = FolderLock(tmp_path, said.append)
    lock.acquire()

    def check():
        assert not module._held and lock._descriptor is None

    assert end_of(fork(check)) == 0
    lock.check()
    lock.release()


@linux
def test_a_training_holds_its_folders_and_ends_when_another_has_them(tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.runner.Runner._log_env', lambda *args: None)
    from mmengine.hooks import Hook

    seen = []

    class Look(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            seen.append(sorted(path.parent.name for path in tmp_path.rglob(LOCK)))

    cfg = config(tmp_path / 'a', out_dir=str(tmp_path / 'elsewhere'))
    train(cfg, hooks=[Look()])
    assert seen[0] == ['a', 'a'] and not list(tmp_path.rglob(LOCK))
    holder = Other(tmp_path / 'a')
    before = sorted(tmp_path.glob('elsewhere/a/*'))
    runner = None
    with pytest.raises(UserError, match='is in use by another training'):
        runner = train(config(tmp_path / 'a', out_dir=str(tmp_path / 'elsewhere')), resume=True)
    assert runner is None and sorted(tmp_path.glob('elsewhere/a/*')) == before
    cfg = config(tmp_path / 'a')
    cfg.test_dataloader, cfg.test_evaluator, cfg.test_cfg = cfg.val_dataloader, cfg.val_evaluator, dict()
    from mmengine.runner import Runner

    assert Runner.from_cfg(cfg).test()  # which replaces nothing
    holder.kill()
    assert Path(tmp_path, 'a').is_dir()
