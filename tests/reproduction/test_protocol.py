import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import ROOT
from mmengine.config import Config

from mixdet.datasets import make_demo_data
from mixdet.errors import UserError
from mixdet.reproduction import protocol
from mixdet.reproduction.protocol import DatasetPaths, ShortSchedule, protocol_config, train_and_test

ROW = ROOT / 'configs/ssdlite_mobilenetv2/ssdlite_mobilenetv2-mixconv357_8xb24-600e_coco.py'
SMALL = Config.fromfile(ROOT / 'configs/_base_/schedules/schedule_small.py')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'set'
    make_demo_data(folder, {'train': 4, 'val': 2})
    return DatasetPaths(str(folder), 'annotations/train.json', 'images/train/', 'annotations/val.json', 'images/val/')


def test_own_schedule_is_kept_without_epochs(data):
    cfg, original = protocol_config(ROW, data, seed=3), Config.fromfile(ROW)
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr'):
        assert cfg[key] == original[key]
    assert cfg.train_dataloader.batch_size == 24 and cfg.train_dataloader.dataset.times == 5
    assert cfg.randomness.seed == 3
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == f'{data.root}/annotations/val.json'
    classes = cfg.val_dataloader.dataset.metainfo.classes
    assert cfg.train_dataloader.dataset.dataset.metainfo.classes == classes
    assert cfg.model.bbox_head.num_classes == len(classes)
    assert cfg.model.backbone == original.model.backbone


def test_the_data_set_is_read_where_it_lies(data, monkeypatch):
    monkeypatch.chdir(Path(data.root).parent)
    cfg = protocol_config(ROW, data._replace(root=Path(data.root).name), 0)  # also from another folder
    train, val = cfg.train_dataloader.dataset.dataset, cfg.val_dataloader.dataset
    assert train.data_root == val.data_root == f'{data.root}/'
    assert (train.ann_file, train.data_prefix) == ('annotations/train.json', dict(img='images/train/'))
    assert (val.ann_file, val.data_prefix) == ('annotations/val.json', dict(img='images/val/'))
    assert cfg.test_dataloader == cfg.val_dataloader


@pytest.mark.parametrize(('gpu', 'hooks'), [(False, 1), (True, 0)])
def test_channels_last_is_for_the_cpu(data, monkeypatch, gpu, hooks):
    monkeypatch.setattr(protocol, 'torch', SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: gpu)))
    cfg = protocol_config(ROW, data, 0)
    assert [hook['type'] for hook in cfg.custom_hooks].count('mixdet.ChannelsLastHook') == hooks


def test_small_schedule_with_epochs(data):
    cfg = protocol_config(ROW, data, 0, ShortSchedule(SMALL, 7))
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[1].T_max == 7
    assert cfg.optim_wrapper == SMALL.optim_wrapper and SMALL.train_cfg.max_epochs == 100
    assert cfg.train_dataloader.batch_size == 8 and cfg.train_dataloader.dataset.times == 1
    assert cfg.train_cfg.val_interval == cfg.param_scheduler[1].end == 7
    assert cfg.default_hooks.checkpoint.interval == cfg.default_hooks.checkpoint.max_keep_ckpts == 1
    assert cfg.default_hooks.checkpoint.save_best is None
    assert cfg.default_hooks.logger.interval == 10
    assert cfg.train_dataloader.num_workers == cfg.val_dataloader.num_workers == 2
    assert cfg.train_dataloader.dataset.dataset.filter_cfg.min_size == 1


def test_annotations_without_categories_are_refused(data, tmp_path):
    (tmp_path / 'annotations').mkdir()
    for part in ('train', 'val'):
        (tmp_path / f'annotations/{part}.json').write_text('{"images": [], "annotations": []}')
    with pytest.raises(UserError, match='annotations/train.json has no categories'):
        protocol_config(ROW, data._replace(root=str(tmp_path)), 0)


def test_missing_annotations_are_named(data):
    with pytest.raises(UserError, match='gone.json does not exist; set --data-root, --train-ann'):
        protocol_config(ROW, data._replace(val_ann='gone.json'), 0)


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Stands in for the tools: notes each command and leaves the files that a tool would."""
    calls, work_dir = [], tmp_path / 'w'

    def run(command):
        calls.append([part.rpartition('/')[2] for part in command[1:] if '--work-dir' not in part])
        if 'train' in command[1].rpartition('/')[2]:
            (work_dir / 'epoch_2.pth').touch()
        else:
            (work_dir / 'results').mkdir()
            (work_dir / 'results/epoch_2.json').touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(protocol.subprocess, 'run', run)
    return calls


def test_continues_where_it_stopped(data, calls, tmp_path):
    cfg, work_dir = protocol_config(ROW, data, 0, ShortSchedule(SMALL, 2)), tmp_path / 'w'
    train_and_test(cfg, 'net', work_dir, ROOT / 'tools')
    assert calls == [['train.py', 'net.py', 'w'], ['test.py', 'net.py', 'epoch_2.pth', 'w']]
    assert (tmp_path / 'net.py').read_text() == cfg.pretty_text  # beside the work dir, which has MMEngine's own copy
    train_and_test(cfg, 'net', work_dir, ROOT / 'tools')  # nothing left to do
    assert len(calls) == 2
    (work_dir / 'results/epoch_2.json').unlink()
    (work_dir / 'results').rmdir()
    train_and_test(cfg, 'net', work_dir, ROOT / 'tools')
    assert calls[2:] == [['test.py', 'net.py', 'epoch_2.pth', 'w']]
    (work_dir / 'results/epoch_2.json').unlink()
    (work_dir / 'results').rmdir()
    (work_dir / 'epoch_2.pth').unlink()
    (work_dir / 'last_checkpoint').touch()
    train_and_test(cfg, 'net', work_dir, ROOT / 'tools', gpus=4)
    assert calls[3:] == [
        ['dist_train.sh', 'net.py', '4', 'w', '--resume'],
        ['dist_test.sh', 'net.py', 'epoch_2.pth', '4', 'w'],
    ]


def test_other_settings_are_not_mixed_in(data, calls, tmp_path):
    train_and_test(protocol_config(ROW, data, 0, ShortSchedule(SMALL, 2)), 'net', tmp_path / 'w', ROOT / 'tools')
    with pytest.raises(UserError, match='net.py was written with other settings'):
        train_and_test(protocol_config(ROW, data, 0, ShortSchedule(SMALL, 3)), 'net', tmp_path / 'w', ROOT / 'tools')


def test_an_interrupt_ends_the_whole_series(data, monkeypatch, tmp_path):
    monkeypatch.setattr(protocol.subprocess, 'run', lambda command: subprocess.CompletedProcess(command, 130))
    with pytest.raises(KeyboardInterrupt):
        train_and_test(protocol_config(ROW, data, 0, ShortSchedule(SMALL, 2)), 'net', tmp_path / 'w', ROOT / 'tools')


def test_a_failing_tool_stops_it(data, monkeypatch, tmp_path):
    monkeypatch.setattr(protocol.subprocess, 'run', lambda command: subprocess.CompletedProcess(command, 2))
    with pytest.raises(UserError, match=r'tools/train.py failed on .*net.py \(status 2\)'):
        train_and_test(protocol_config(ROW, data, 0, ShortSchedule(SMALL, 2)), 'net', tmp_path / 'w', ROOT / 'tools')
