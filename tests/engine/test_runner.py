from unittest.mock import Mock

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook

from mixdet.engine.class_names import ClassNamesHook
from mixdet.engine.console import ConsoleHook
from mixdet.engine.runner import BUILT_IN, Runner


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
