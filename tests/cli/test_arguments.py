import argparse
import os
import re

import pytest
from helpers import ROOT

from mixdet.cli.arguments import add_common_arguments, add_unsafe_load, config_from_arguments, fraction
from mixdet.compat import checkpoints
from mixdet.errors import UserError


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Reads a config (its text) with command-line arguments."""
    monkeypatch.chdir(tmp_path)

    def read(text, *words):
        (tmp_path / 'tiny.py').write_text(text)
        parser = argparse.ArgumentParser()
        add_common_arguments(parser)
        return config_from_arguments(parser.parse_args(['tiny.py', *words]))

    return read


def test_options_change_the_config(config):
    text = 'train_cfg = dict(max_epochs=3)\ncustom_hooks = [dict(interval=1), dict(interval=2)]'
    cfg = config(text, '--cfg-options', 'train_cfg.max_epochs=5', 'custom_hooks.1.interval=7')
    assert cfg.train_cfg.max_epochs == 5 and [hook.interval for hook in cfg.custom_hooks] == [1, 7]
    with pytest.raises(UserError, match="unknown key 'train_cgf'"):
        config(text, '--cfg-options', 'train_cgf.max_epochs=5')


def test_the_work_dir_is_that_of_the_argument_the_config_or_its_name(config):
    assert config('work_dir = "mine"', '--work-dir', 'given').work_dir == 'given'
    assert config('work_dir = "mine"').work_dir == 'mine'
    assert config('').work_dir == config('work_dir = None').work_dir == 'work_dirs/tiny'


@pytest.mark.parametrize('name', [os.fsdecode(b'caf\xe9'), 'a/\udcff/b'])
def test_a_work_dir_that_opencv_cannot_name_is_refused(config, name):
    with pytest.raises(UserError, match='its path must be UTF-8'):
        config('', '--work-dir', name)


def test_a_work_dir_that_the_locale_cannot_name_is_refused(config, monkeypatch):
    monkeypatch.setattr('os.fsencode', lambda name: name.encode('ascii'))
    assert config('', '--work-dir', 'cafe').work_dir == 'cafe'
    with pytest.raises(UserError, match='its path must be UTF-8'):
        config('', '--work-dir', 'café')


def test_arguments_of_launchers_are_accepted():
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    for word in ('--local_rank=3', '--local-rank=3'):
        assert parser.parse_args(['tiny.py', word]).local_rank == 3
    args = parser.parse_args(['tiny.py'])
    assert (args.local_rank, args.launcher, args.unsafe_load) == (0, 'none', False)


def test_files_are_trusted_only_on_request(monkeypatch):
    monkeypatch.setattr(checkpoints, '_trusted', False)
    parser = argparse.ArgumentParser()
    add_unsafe_load(parser)
    assert parser.parse_args([]).unsafe_load is False and not checkpoints.files_are_trusted()
    assert parser.parse_args(['--unsafe-load']).unsafe_load is True and checkpoints.files_are_trusted()


def test_every_tool_that_reads_checkpoints_has_the_option_that_refusals_name():
    readers = re.compile(r'\b(Detector|read_checkpoint|read_step|ExportedDetector|load_exported|convert)\(')
    own = {'kill_drill.py', 'resume_drill.py', 'foreign_files_drill.py'}  # which read what they wrote
    tools = {path.name: path.read_text() for path in (ROOT / 'tools').rglob('*.py')}
    found = {name for name, text in tools.items() if readers.search(text)} - own
    assert found == {name for name, text in tools.items() if re.search('add_(unsafe_load|common_arguments)', text)}
    assert len(found) == 7


def test_a_score_is_from_0_to_1():
    assert [fraction(text) for text in ('0', '0.3', '1', '5e-2')] == [0, 0.3, 1, 0.05]
    for text in ('30', '-0.1', 'nan', 'inf', 'high', ''):
        with pytest.raises(UserError, match='is no score: give a number from 0 to 1'):
            fraction(text)
