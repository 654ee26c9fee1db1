import contextlib
import logging
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook

from mixdet.engine.console import ConsoleHook
from mixdet.engine.runner import BUILT_IN, Runner


class Breaking:
    """MMEngine's Runner with an interrupted training."""

    def train(self):
        raise KeyboardInterrupt


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
def test_the_console_hook_is_there_with_any_config(runner, custom_hooks):
    runner.register_hooks({}, custom_hooks)
    registered = [type(call.args[0]) for call in runner.register_hook.call_args_list]
    assert registered.count(ConsoleHook) == 1


def test_after_run_is_called_if_a_training_breaks_off(runner, monkeypatch):
    monkeypatch.setattr('mmengine.runner.Runner.train', Breaking.train)
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    runner.call_hook.assert_called_once_with('after_run')


def test_only_a_training_replaces_the_config_of_a_work_dir(tmp_path):
    runner = object.__new__(Runner)
    runner._rank, runner._work_dir, runner._timestamp = 0, str(tmp_path), 'now'
    for options, replace, kept in ((1, False, 1), (2, False, 1), (3, True, 3)):
        (tmp_path / 'source').mkdir(exist_ok=True)
        (tmp_path / 'source/c.py').write_text(f'options = {options}\n')
        runner.cfg = Config.fromfile(tmp_path / 'source/c.py')
        runner.dump_config(replace)
        assert Config.fromfile(tmp_path / 'c.py').options == kept


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
