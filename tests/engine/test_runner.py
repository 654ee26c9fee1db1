import contextlib
import logging
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from helpers import little_room
from mmengine.config import Config
from mmengine.hooks import Hook

from mixdet.engine.class_names import ClassNamesHook
from mixdet.engine.console import ConsoleHook
from mixdet.engine.runner import BUILT_IN, Runner
from mixdet.errors import UserError


class Breaking:
    """MMEngine's Runner with an interrupted training; names the file it loads, as upstream does."""

    def train(self):
        raise KeyboardInterrupt

    def load_or_resume(self):
        print('Loads checkpoint \x1b')


@pytest.fixture
def runner():
    runner = object.__new__(Runner)
    runner.register_hook, runner.call_hook, runner.dump_config = Mock(), Mock(), Mock()
    return runner


def test_none_switches_any_default_hook_off(runner):
    mine = Hook()
    runner.register_default_hooks(dict(report=None, visualization=None, checkpoint=None, mine=mine))
    registered = [call.args[0] for call in runner.register_hook.call_args_list]
    assert registered[-1] is mine and len(registered) == len(BUILT_IN)  # without the checkpoint, with mine
    assert None not in registered
    runner.register_default_hooks(None)


@pytest.mark.parametrize('custom_hooks', [None, [], [Hook()]])  # MMDetection's configs have none
def test_our_hooks_are_there_with_any_config(runner, custom_hooks):
    runner.register_hooks({}, custom_hooks)
    registered = [type(call.args[0]) for call in runner.register_hook.call_args_list]
    assert registered.count(ConsoleHook) == registered.count(ClassNamesHook) == 1


def test_after_run_is_called_if_a_training_breaks_off(runner, monkeypatch):
    monkeypatch.setattr('mmengine.runner.Runner.train', Breaking.train)
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    runner.call_hook.assert_called_once_with('after_run')


def test_the_name_of_a_file_is_not_printed_raw(runner, monkeypatch, capsys):
    monkeypatch.setattr('mmengine.runner.Runner.load_or_resume', Breaking.load_or_resume)
    runner.load_or_resume()
    assert not capsys.readouterr().out


def test_the_log_takes_any_name(tmp_path):
    runner = object.__new__(Runner)
    runner._experiment_name, runner._log_dir, runner._timestamp = 'any name', str(tmp_path), 'now'
    logger = runner.build_logger(log_level='INFO')
    logger.info('class %s', '\x1b[31m文\u202e')
    logger.handlers[-1].close()
    assert 'class \\x1b[31m文\\u202e' in (tmp_path / 'now.log').read_text(encoding='utf-8')


def test_only_a_training_replaces_the_config_of_a_work_dir(tmp_path):
    runner = object.__new__(Runner)
    runner._rank, runner._work_dir, runner._timestamp = 0, str(tmp_path), 'now'
    for options, replace, kept in ((1, False, 1), (2, False, 1), (3, True, 3)):
        (tmp_path / 'source').mkdir(exist_ok=True)
        (tmp_path / 'source/c.py').write_text(f'options = {options}\n')
        runner.cfg = Config.fromfile(tmp_path / 'source/c.py')
        runner.dump_config(replace)
        assert Config.fromfile(tmp_path / 'c.py').options == kept


def dumped(tmp_path, source, **values):
    """The runner of a config read from ``source``, and the file that it writes into ``tmp_path``."""
    runner = object.__new__(Runner)
    runner._rank, runner._work_dir, runner._timestamp = 0, str(tmp_path), 'now'
    if not source.exists():
        source.parent.mkdir()
        source.touch()
    runner.cfg = Config(values, filename=str(source))
    runner.dump_config(replace=True)
    return tmp_path / source.name


def test_the_file_that_was_read_is_not_replaced(tmp_path):
    """A config that lies in its own work dir, there or through a link."""
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
    mine = tmp_path / 'a/c.py'
    mine.write_text('# mine\n')
    (tmp_path / 'b/c.py').symlink_to(mine)
    for folder in ('a', 'b'):
        dumped(tmp_path / folder, mine, a=1)
        assert mine.read_text() == '# mine\n'
    other = tmp_path / 'other.py'
    other.write_text('# mine\n')
    (tmp_path / 'b/other2.py').symlink_to(other)
    path = dumped(tmp_path / 'b', tmp_path / 'elsewhere/other2.py', a=1)
    assert other.read_text() == '# mine\n' and Config.fromfile(path).a == 1


def test_names_in_a_dumped_config_mean_themselves(tmp_path):
    path = dumped(tmp_path, tmp_path / 'elsewhere/c.py', classes=('{{$HOME:x}}', '{{ fileBasename }}'))
    assert Config.fromfile(path).classes == ('{{$HOME:x}}', '{{ fileBasename }}')


def test_a_config_that_cannot_be_written_is_named(tmp_path):
    with little_room(0), pytest.raises(UserError, match='c.py cannot be written: File too large'):
        dumped(tmp_path, tmp_path / 'elsewhere/c.py', a=1)


@pytest.mark.skipif(sys.platform != 'linux', reason='needs /dev/full')
def test_a_log_that_cannot_be_written_is_told_once(tmp_path, runner, monkeypatch, capsys):
    logger = logging.getLogger('unwritable')
    logger.propagate = False
    monkeypatch.setattr(logger, 'handlers', [logging.FileHandler(tmp_path / 'a.log'), logging.StreamHandler()])
    monkeypatch.setattr('mmengine.runner.Runner.build_logger', lambda self: logger)
    file, console = runner.build_logger().handlers
    assert console.level == logging.WARNING
    file.stream.close()
    file.stream = Path('/dev/full').open('w')  # noqa: SIM115
    for _ in range(2):
        logger.error('x')
    told = [line for line in capsys.readouterr().err.splitlines() if line != 'x']
    assert told == [f'{tmp_path / "a.log"} cannot be written any more: [Errno 28] No space left on device']
    with contextlib.suppress(OSError):
        file.stream.close()
