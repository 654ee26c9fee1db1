"""Variables of configs that are set from the command line, through ``config_with_options``."""

import pytest
from helpers import ROOT

from mixdet.cli.options import config_with_options
from mixdet.cli.variables import is_setting
from mixdet.errors import UserError

DEMO = str(ROOT / 'configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py')
TEMPLATE = str(ROOT / 'configs/custom/ssdlite_mixnet-s_custom.py')
RETINANET = str(ROOT / 'configs/mixnet/retinanet_mixnet-s_fpn_8xb2-12e_coco.py')


def test_what_is_a_setting():
    settings = ('model', 'train_dataloader', 'val_evaluator', 'default_hooks', 'work_dir', 'load_from', 'tta_model')
    assert all(map(is_setting, settings))
    assert not any(map(is_setting, ('max_epochs', 'data_root', 'train_pipeline', 'metainfo', 'vis_backends', 'cfg')))


def test_variables_of_the_template_are_its_parameters():
    options = dict(max_epochs=3, data_root='/nowhere/', classes=('a', 'b', 'c'), batch_size=2)
    cfg, notes = config_with_options(TEMPLATE, options)
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[1].T_max == cfg.param_scheduler[1].end == 3
    train, val = cfg.train_dataloader.dataset.dataset, cfg.val_dataloader.dataset
    assert train.data_root == val.data_root == cfg.test_dataloader.dataset.data_root == '/nowhere/'
    assert cfg.val_evaluator.ann_file == '/nowhere/annotations/val.json'
    assert train.metainfo.classes == val.metainfo.classes == ('a', 'b', 'c')
    assert cfg.model.bbox_head.num_classes == 3 and cfg.train_dataloader.batch_size == 2
    assert notes == []


def test_places_inside_variables_and_variables_of_a_base():
    cfg, _ = config_with_options(DEMO, {'train_pipeline.2.scale': (96, 96), 'norm_cfg.momentum': 0.5})
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (96, 96)
    assert cfg.model.backbone.norm_cfg.momentum == cfg.model.bbox_head.norm_cfg.momentum == 0.5
    cfg, _ = config_with_options(RETINANET, dict(data_root='/coco'))  # of MMDetection's base, which adds to it
    assert cfg.val_evaluator.ann_file == '/coco/annotations/instances_val2017.json'
    assert cfg.train_dataloader.dataset.data_root == '/coco/'


def test_a_single_name_for_a_list_of_names():
    cfg, _ = config_with_options(TEMPLATE, dict(classes='raccoon'))
    assert (
        cfg.train_dataloader.dataset.dataset.metainfo.classes == ('raccoon',) and cfg.model.bbox_head.num_classes == 1
    )


def test_a_variable_that_nothing_depends_on_is_refused_with_the_key_to_set(tmp_path):
    (tmp_path / 'c.py').write_text(f"_base_ = '{DEMO}'\nepochs = 3\ntrain_cfg = dict(max_epochs=2)\n")
    with pytest.raises(UserError, match=r'^--cfg-options epochs: nothing in .*c.py is computed from it; set what you'):
        config_with_options(str(tmp_path / 'c.py'), dict(epochs=5))
    (tmp_path / 'd.py').write_text('max_epochs = 3\ntrain_cfg = dict(max_epochs=2)\n')
    with pytest.raises(UserError, match='is computed from it; set train_cfg.max_epochs$'):
        config_with_options(str(tmp_path / 'd.py'), dict(max_epochs=5))
    config_with_options(str(tmp_path / 'd.py'), dict(max_epochs=3))  # its value already


def test_a_setting_that_a_variable_does_not_reach_is_named(tmp_path):
    (tmp_path / 'c.py').write_text(f"_base_ = '{DEMO}'\ntrain_cfg = dict(max_epochs=2)\n")
    cfg, notes = config_with_options(str(tmp_path / 'c.py'), dict(max_epochs=5))
    assert cfg.param_scheduler[1].T_max == 5 and cfg.train_cfg.max_epochs == 2
    assert notes == ['--cfg-options max_epochs: the config itself sets train_cfg.max_epochs=2']


def test_plain_settings_that_others_are_computed_from(tmp_path):
    path = tmp_path / 'c.py'
    path.write_text("work_dir = 'a'\ndefault_hooks = dict(a=dict(out_dir=work_dir))\ncustom_hooks = [dict(b=1)]\n")
    cfg, _ = config_with_options(str(path), {'work_dir': 'b', 'custom_hooks': []})
    assert cfg.work_dir == cfg.default_hooks.a.out_dir == 'b' and cfg.custom_hooks == []
