import argparse

import pytest
from helpers import ROOT

from mixdet.cli.options import OptionAction, config_with_options, merge_options
from mixdet.engine.config import load_config
from mixdet.errors import UserError

DEMO = str(ROOT / 'configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py')


@pytest.mark.parametrize(
    'options',
    [
        {'train_cfg.max_epochs': 3},
        {'model.backbone.frozen_stages': 1},  # not in the config, but a parameter of the class
        {'train_dataloader.dataset.indices': 5},  # of a base class, through **kwargs
        {'train_dataloader.drop_last': True},  # of torch's DataLoader
        {'model.backbone.init_cfg.type': 'Normal'},
        {'optim_wrapper.optimizer.betas': (0.9, 0.99)},  # of a torch class
        {'custom_hooks.1.type': 'EMAHook'},
        {'resume': True},
        {'default_hooks.checkpoint.by_epoch': False},
    ],
)
def test_known_keys_are_merged(options):
    cfg = load_config(DEMO)
    merge_options(cfg, options)
    for key, value in options.items():
        node = cfg
        for part in key.split('.'):
            node = node[int(part)] if part.isdigit() else node[part]
        assert node == value


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('trian_cfg.max_epochs', "unknown key 'trian_cfg' in the config; did you mean train_cfg"),
        ('train_cfg.max_epoch', "unknown key 'max_epoch' in train_cfg; did you mean max_epochs"),
        ('model.backbone.frozen_stage', "unknown key 'frozen_stage' in model.backbone; did you mean frozen_stages"),
        ('model.backbone.arch.size', "model.backbone.arch is 's', it has no keys"),
        ('train_dataloader.batchsize', 'did you mean batch_size'),
        ('optim_wrapper.optimizer.learning_rate', "unknown key 'learning_rate' in optim_wrapper.optimizer"),
        ('custom_hooks.9.type', "custom_hooks is a list of 3; '9' is not an index of it"),
    ],
)
def test_unknown_keys_are_named(key, message):
    with pytest.raises(UserError, match=message) as error:
        merge_options(load_config(DEMO), {key: 1})
    assert '\n' not in str(error.value)


TEMPLATE = str(ROOT / 'configs/custom/ssdlite_mixnet-s_custom.py')
TABLE1 = str(ROOT / 'configs/ssdlite_mobilenetv2/ssdlite_mobilenetv2-mixconv357_8xb24-600e_coco.py')
RETINANET = str(ROOT / 'configs/mixnet/retinanet_mixnet-s_fpn_8xb2-12e_coco.py')


@pytest.mark.parametrize(
    ('path', 'option', 'suggestion'),
    [
        (TEMPLATE, 'max_epoch', 'did you mean max_epochs?'),
        (RETINANET, 'max_epoch', 'did you mean train_cfg.max_epochs?'),  # it has no such variable
        (RETINANET, 'max_epochs', 'did you mean train_cfg.max_epochs?'),
        (TEMPLATE, 'lr', 'did you mean optim_wrapper.optimizer.lr?'),
    ],
)
def test_what_is_suggested_works(path, option, suggestion):
    with pytest.raises(UserError, match='unknown key') as error:
        config_with_options(path, {option: 3})
    assert str(error.value).endswith(suggestion)
    meant = suggestion.split()[-1].rstrip('?')
    cfg, _ = config_with_options(path, {meant: 3})
    assert cfg.train_cfg.max_epochs == 3 or meant.endswith('.lr')


def test_the_length_of_the_training_moves_the_schedule():
    cfg, notes = config_with_options(TABLE1, {'train_cfg.max_epochs': 50})  # computed from a variable
    assert cfg.train_cfg.max_epochs == cfg.max_epochs == cfg.param_scheduler[1].T_max == 50 and notes == []
    cfg, notes = config_with_options(RETINANET, {'train_cfg.max_epochs': 24})
    assert cfg.param_scheduler[1].milestones == [16, 22] and cfg.param_scheduler[1].end == 24
    assert notes == [
        'train_cfg.max_epochs 12 -> 24, and with it param_scheduler.1.end 12 -> 24, '
        'param_scheduler.1.milestones [8, 11] -> [16, 22]'
    ]
    cfg, _ = config_with_options(RETINANET, {'param_scheduler.1.milestones': [20], 'train_cfg.max_epochs': 24})
    assert cfg.param_scheduler[1].milestones == [20] and cfg.param_scheduler[1].end == 24


def test_a_config_that_cannot_be_read_with_the_options_is_named():
    with pytest.raises(UserError, match='^--cfg-options classes: config .* cannot be read: TypeError: '):
        config_with_options(TEMPLATE, dict(classes=3))


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ("('screw small','b')", ('screw small', 'b')),
        ('/my data/a b', '/my data/a b'),
        ("('a')", ('a',)),
        ('(a,b)', ('a', 'b')),
        ('a,b', ['a', 'b']),
        ('[(1,2),[3]]', [(1, 2), [3]]),
        ('"(3,5)"', (3, 5)),
        ("{'a': 1}", {'a': 1}),
        ('1e-3', 0.001),
        ('None', None),
        ('true', True),
        ('k=v', 'k=v'),
    ],
)
def test_values(text, value):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction)
    parsed = parser.parse_args(['--cfg-options', f'x={text}']).cfg_options['x']
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ('word', 'message'), [('x', 'x: must be KEY=VALUE'), ('x=(a', r'\.\.\.=\(a: a bracket is missing')]
)
def test_values_that_cannot_be_read(word, message):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction)
    with pytest.raises(UserError, match=message):
        parser.parse_args(['--cfg-options', word])
