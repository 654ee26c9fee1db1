import json
from pathlib import Path

import pytest
from helpers import ROOT
from study_examples import ROWS, write_study

from mixdet.engine.config import load_config
from mixdet.errors import UserError
from mixdet.reproduction import study as module
from mixdet.reproduction.paper import TABLE1 as PAPER
from mixdet.reproduction.study import load_study, run_config

TABLE1 = ROOT / 'configs/_base_/studies/table1.py'


@pytest.fixture
def study(tmp_path):
    return load_study(write_study(tmp_path))


def config_of(study, tmp_path, number=-1, **settings):
    return run_config(study, study.runs()[number], settings, tmp_path / 'data', tmp_path / 'work')


def test_choices_come_first_and_then_set_by_set_and_seed_by_seed(study):
    assert [run.name for run in study.runs()] == [
        'demo_held-out/tiny3_lr0.001_seed0',
        'demo_held-out/tiny3_lr0.01_seed0',
        'demo/tiny3_seed0',
        'demo/tiny5_seed0',
        'demo/tiny3_seed1',
        'demo/tiny5_seed1',
    ]
    assert study.runs()[1].settings == dict(lr=0.01) and study.runs()[2].settings is None


def test_a_part_of_a_study(study):
    chosen = study.runs(rows=['tiny5'], data=['demo'], seeds=[1])
    assert [run.name for run in chosen[2:]] == ['demo/tiny5_seed1'] and chosen[:2] == study.choices(['tiny'])
    assert study.runs(data=['demo_held-out']) == study.choices(['tiny'])
    assert [run.seed for run in study.runs(rows=['tiny5'], choose=False)] == [0, 1]


@pytest.mark.parametrize(
    ('choice', 'message'),
    [
        (dict(rows=['tiny9']), '--rows tiny9: must be one of tiny3, tiny5'),
        (dict(data=['coco']), '--data coco: must be one of demo, demo_held-out'),
        (dict(seeds=[7]), '--seeds 7: must be one of 0, 1'),
    ],
)
def test_what_a_study_does_not_have(study, choice, message):
    with pytest.raises(UserError, match=message):
        study.runs(**choice)


def test_config_of_a_run(study, tmp_path):
    cfg, row = config_of(study, tmp_path, 3, lr=0.25), load_config(str(ROWS / 'ssdlite_tiny5_coco.py'))
    assert cfg.model.backbone == row.model.backbone and cfg.model.bbox_head.num_classes == 4
    assert cfg.optim_wrapper.optimizer.lr == 0.25 and cfg.train_cfg.max_epochs == cfg.param_scheduler[1].T_max == 2
    assert cfg.randomness == dict(seed=0) and cfg.val_dataloader is None and cfg.train_dataloader.num_workers == 0
    data = f'{tmp_path}/data/demo/'
    assert cfg.train_dataloader.dataset.data_root == data
    assert cfg.test_evaluator.ann_file == f'{data}annotations/val.json'
    assert len(cfg.train_dataloader.dataset.metainfo.classes) == 4
    assert cfg.visualizer.name == cfg.experiment_name == 'demo_tiny5_seed0'
    hook = cfg.default_hooks.checkpoint
    assert (hook.interval, hook.max_keep_ckpts, hook.save_best) == (1, 1, None)


def test_a_choice_sees_training_images_only(study, tmp_path):
    cfg = config_of(study, tmp_path, 0)
    train, test = cfg.train_dataloader.dataset, cfg.test_dataloader.dataset
    names = {
        path: {image['file_name'] for image in json.loads(Path(path).read_text())['images']}
        for path in (train.ann_file, test.ann_file, f'{tmp_path}/data/demo/annotations/train.json')
    }
    kept, held_out, whole = names.values()
    assert kept | held_out == whole and not kept & held_out and len(held_out) == 3
    assert cfg.test_evaluator.ann_file == test.ann_file and test.data_prefix == train.data_prefix


def test_setting_that_the_schedule_does_not_have(study, tmp_path):
    with pytest.raises(UserError, match='schedule_study.py has no variable momentum, which the study sets to 0.5'):
        config_of(study, tmp_path, momentum=0.5)


def test_missing_data_set(study, tmp_path):
    with pytest.raises(UserError, match='data set .*/gone/demo does not exist; set --data-root'):
        run_config(study, study.runs()[0], {}, tmp_path / 'gone', tmp_path / 'work')


@pytest.mark.parametrize(('gpu', 'hooks'), [(False, 1), (True, 0)])
def test_channels_last_is_for_the_cpu(study, tmp_path, monkeypatch, gpu, hooks):
    monkeypatch.setattr(module.torch.cuda, 'is_available', lambda: gpu)
    assert [hook['type'] for hook in config_of(study, tmp_path).custom_hooks].count('mixdet.ChannelsLastHook') == hooks


def test_a_config_that_is_no_study(tmp_path):
    with pytest.raises(UserError, match='schedule_study.py is no study: it has no families and no data_sets'):
        load_study(ROOT / 'configs/_base_/schedules/schedule_study.py')
    path = write_study(tmp_path)
    path.write_text(path.read_text().replace("data='demo'", "data='coco'"))
    with pytest.raises(UserError, match="choice.data='coco' is none of the data_sets"):
        load_study(path)


def test_the_ten_rows_of_table_1():
    study = load_study(TABLE1)
    runs = study.runs()
    assert sum(run.data == 'neu-det' for run in runs) == 30 and sum(run.data == 'bccd' for run in runs) == 20
    for run in runs:
        assert run.config.is_file() and '-in1k_' in run.config.name
    assert [run.row for run in runs if run.data == 'neu-det'][:10] == list(PAPER)  # a whole seed before the next


@pytest.mark.parametrize('name', ['neu-det', 'bccd', 'deeppcb'])
def test_data_at_224(name, tmp_path):
    study = load_study(TABLE1)
    folder = tmp_path / name / 'annotations'
    folder.mkdir(parents=True)
    (run,) = study.runs(['mobilenetv1-mixconv357'], [name], [0], choose=False)
    cfg = run_config(study, run, dict(lr=0.1, ema=True), tmp_path, tmp_path)
    train, test = cfg.train_dataloader.dataset.dataset, cfg.test_dataloader.dataset
    assert train.ann_file.endswith('instances_train.json') and test.ann_file.endswith('instances_test.json')
    assert cfg.test_evaluator.ann_file == f'{tmp_path}/{name}/{test.ann_file}'
    assert train.pipeline[2].scale == test.pipeline[1].scale == (224, 224)
    assert train.pipeline[0].type == 'mixdet.LoadCachedImage' and test.pipeline[0].type == 'LoadImageFromFile'
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 24
    assert cfg.model.bbox_head.num_classes == len(train.metainfo.classes) == len(test.metainfo.classes)
    assert 'EMAHook' in [hook['type'] for hook in cfg.custom_hooks] and cfg.optim_wrapper.optimizer.lr == 0.1
