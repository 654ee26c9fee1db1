import argparse

import pytest
from mmdet.engine.hooks import NumClassCheckHook
from mmengine.runner import EpochBasedTrainLoop, ValLoop
from tiny_training import TinyDataset, config

from mixdet.cli.runner import build_runner
from mixdet.engine import Runner
from mixdet.errors import UserError


@pytest.fixture
def build(monkeypatch):
    """Builds the runner of a config with the arguments of a tool."""
    monkeypatch.setattr('mmengine.runner.Runner._log_env', lambda *args: None)
    monkeypatch.setenv('LOCAL_RANK', '0')

    def run(cfg, parts=('train', 'val')):
        return build_runner(cfg, argparse.Namespace(config='tiny.py', launcher='none', local_rank=0), parts)

    return run


def test_the_loops_that_will_run_are_built(build, tmp_path):
    runner = build(config(tmp_path))
    assert isinstance(runner, Runner)
    assert isinstance(runner._train_loop, EpochBasedTrainLoop) and isinstance(runner._val_loop, ValLoop)
    runner = build(config(tmp_path), parts=('val',))
    assert isinstance(runner._train_loop, dict) and isinstance(runner._val_loop, ValLoop)


def test_a_data_root_without_its_slash_is_named(build, tmp_path):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/val.json').write_text('{}')
    cfg = config(tmp_path)
    cfg.val_dataloader.dataset.data_root = root = str(tmp_path / 'data')
    cfg.val_evaluator = [dict(type='CocoMetric', ann_file=root + 'val.json')]
    with pytest.raises(
        UserError, match=r'^val_evaluator.ann_file: .*dataval.json does not exist; data_root=.* a slash'
    ):
        build(cfg)


def test_what_lies_after_the_end_of_the_training_is_said(build, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr('mmengine.logging.MMLogger.warning', lambda self, text, *args: warnings.append(text))
    cfg = config(tmp_path)
    cfg.param_scheduler = [
        dict(type='LinearLR', by_epoch=False, begin=0, end=100),
        dict(type='CosineAnnealingLR', T_max=9),
    ]
    build(cfg)
    assert warnings == [
        'after the end of the training: param_scheduler.0.end=100, param_scheduler.1.T_max=9; the schedule is cut off '
        'there, set these keys to what fits'
    ]


def test_a_runner_of_the_users_is_built(build, tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr('mixdet.cli.runner.RUNNERS.build', lambda cfg: built.append(cfg) or Runner.from_cfg(cfg))
    cfg = config(tmp_path)
    cfg.runner_type = 'mixdet.Runner'
    build(cfg)
    assert built == [cfg]


def test_training_without_validation(build, tmp_path):
    cfg = config(tmp_path)
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    assert build(cfg).val_loop is None


def test_an_unusable_config_is_named(build, tmp_path):
    cfg = config(tmp_path)
    cfg.train_dataloader.sampler.type = 'NoSuchSampler'
    with pytest.raises(UserError, match=r'^tiny\.py: .*NoSuchSampler'):
        build(cfg)


def test_an_empty_data_set_is_an_error(build, tmp_path, monkeypatch):
    monkeypatch.setattr(TinyDataset, 'load_data_list', lambda self: [])
    with pytest.raises(UserError, match='^train_dataloader.dataset is empty: no image has a box of its classes'):
        build(config(tmp_path))


def test_an_empty_data_set_that_cannot_be_serialized_is_an_error(build, tmp_path, monkeypatch):
    monkeypatch.setattr(TinyDataset, 'load_data_list', lambda self: [])
    cfg = config(tmp_path)
    cfg.train_dataloader.dataset.serialize_data = True  # the default, which fails on it
    with pytest.raises(UserError, match='^train_dataloader.dataset is empty: no image has a box of its classes'):
        build(cfg)


def test_the_number_of_classes_is_checked_before_the_training(build, tmp_path, monkeypatch):
    def fail(self, runner):
        raise AssertionError('num_classes=80 and 1 class')

    monkeypatch.setattr(NumClassCheckHook, 'before_train_epoch', fail)
    cfg = config(tmp_path)
    cfg.custom_hooks = [dict(type='NumClassCheckHook')]
    with pytest.raises(UserError, match='^tiny.py: num_classes=80 and 1 class'):
        build(cfg)
