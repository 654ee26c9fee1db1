import pytest
from helpers import ROOT

from mixdet.cli.options import merge_options
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
