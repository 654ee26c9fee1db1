"""What a resumed run says of a changed config, and which checkpoints it refuses."""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import CosineAnnealingLR, MultiStepLR, OptimWrapper
from mmengine.runner import Runner
from tiny_training import BATCHES, TinyDataset, TinyModel, config, train
from torch import nn

from mixdet.compat.checkpoints import weights_only
from mixdet.engine.checkpoint_hook import CheckpointHook
from mixdet.engine.resumable import _replay, check_resumable, settle_changes
from mixdet.errors import UserError
from mixdet.registry import MODELS


@pytest.fixture(autouse=True)
def short_start(monkeypatch):
    monkeypatch.setattr(Runner, '_log_env', lambda *args: None)


COSINE = dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True)


def run_config(folder, epochs=2, lr=0.01, momentum=0.0, interval=BATCHES, **hook):
    """Warm-up and a cosine over ``epochs``; two groups of parameters."""
    cfg = config(folder, interval=interval, **hook)
    cfg.train_cfg.max_epochs = epochs
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=lr, momentum=momentum)
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=dict(head=dict(lr_mult=0.1)))
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
        dict(COSINE, T_max=epochs, end=epochs),
        dict(type='MultiStepLR', by_epoch=True, milestones=[epochs - 1], gamma=0.5),
    ]
    return cfg


def rates_of(runner):
    """Learning rates of all iterations, those of an earlier run first."""
    return runner.message_hub.log_scalars['train/lr'].data[0].tolist()


def resume(cfg, monkeypatch, **options):
    """Resume ``cfg``: the runner, and the warnings of its own logger."""
    warnings = []
    build = Runner.build_logger

    def build_logger(self, *args, **kwargs):
        logger = build(self, *args, **kwargs)
        monkeypatch.setattr(logger, 'warning', warnings.append)
        return logger

    monkeypatch.setattr(Runner, 'build_logger', build_logger)
    return train(cfg, resume=True, **options), warnings


@pytest.mark.parametrize('kill_at', [2 * BATCHES, BATCHES + 3])
def test_a_new_schedule_goes_on_as_if_it_had_been_there_from_the_start(tmp_path, monkeypatch, kill_at):
    """For more epochs and at another rate; from the end of an epoch and from within one."""
    options = dict(epochs=4, lr=0.02, momentum=0.5)
    expected = rates_of(train(run_config(tmp_path / 'other', **options)))
    train(run_config(tmp_path / 'a', interval=1), kill_at=kill_at)
    runner, warnings = resume(run_config(tmp_path / 'a', new_schedule=True, interval=1, **options), monkeypatch)
    done = min(kill_at, 2 * BATCHES)
    assert runner.iter == 4 * BATCHES
    assert rates_of(runner)[done:] == pytest.approx(expected[done:], rel=1e-12)
    assert [group['momentum'] for group in runner.optim_wrapper.param_groups] == [0.5] * 7
    assert warnings == [
        'resuming with the settings of the config: max_epochs 2 -> 4, optimizer.lr 0.01 -> 0.02, '
        'optimizer.momentum 0.0 -> 0.5, optimizer.lr 0.001 -> 0.002, param_scheduler.1.T_max 8 -> 16, '
        'param_scheduler.1.end 8 -> 16, param_scheduler.2.milestones [1] -> [3], param_scheduler.2.end 2 -> 4'
    ]


def test_a_schedule_is_replayed_in_the_order_of_a_training():
    calls = []
    by_iteration, by_epoch = (
        SimpleNamespace(by_epoch=name == 'epoch', step=partial(calls.append, name)) for name in ('iteration', 'epoch')
    )
    _replay([by_iteration, by_epoch], epochs=2, iterations=7, batches=3)
    assert calls == [*['iteration'] * 3, 'epoch'] * 2 + ['iteration']


def test_without_the_switch_the_checkpoint_goes_on_and_what_it_ignores_is_named(tmp_path, monkeypatch):
    before = train(run_config(tmp_path))
    last = before.optim_wrapper.param_groups[0]['lr']
    runner, warnings = resume(run_config(tmp_path, epochs=3, lr=0.02), monkeypatch)
    assert rates_of(runner)[2 * BATCHES :] == pytest.approx([last] * BATCHES)
    assert len(warnings) == 1
    assert warnings[0].startswith(
        'max_epochs 2 -> 3; resuming with the settings of the checkpoint, not of the config: optimizer.lr 0.01 -> 0.02'
    )
    assert warnings[0].endswith("--new-schedule, or new_schedule=True of mixdet.CheckpointHook, takes the config's")


def test_nothing_is_said_of_an_unchanged_config(tmp_path, monkeypatch):
    train(run_config(tmp_path), kill_at=BATCHES + 1)
    runner, warnings = resume(run_config(tmp_path), monkeypatch)
    assert runner.iter == 2 * BATCHES and warnings == []


def test_longer_without_any_schedule(tmp_path, monkeypatch):
    cfg = run_config(tmp_path)
    cfg.param_scheduler = None
    train(cfg)
    cfg = run_config(tmp_path, epochs=3)
    cfg.param_scheduler = None
    runner, warnings = resume(cfg, monkeypatch)
    assert runner.iter == 3 * BATCHES and set(rates_of(runner)) == {0.01}
    assert [text for text in warnings if 'settings' in text] == []


def test_a_schedule_of_another_kind_is_named(tmp_path, monkeypatch):
    train(run_config(tmp_path), kill_at=BATCHES + 1)
    cfg = run_config(tmp_path)
    cfg.param_scheduler[1] = dict(type='PolyLR', by_epoch=True, power=2, end=2)
    _, warnings = resume(cfg, monkeypatch)
    assert 'param_scheduler.1 is now a PolyLR' in warnings[0]
    cfg = run_config(tmp_path)
    cfg.param_scheduler = cfg.param_scheduler[:1]
    _, warnings = resume(cfg, monkeypatch)
    assert 'param_scheduler has 3 -> 1 parts' in warnings[0]


def test_a_checkpoint_without_a_schedule_gets_the_configs(tmp_path, monkeypatch):
    expected = rates_of(train(run_config(tmp_path / 'whole')))
    train(run_config(tmp_path / 'a', save_param_scheduler=False), kill_at=BATCHES + 1)
    runner, _ = resume(run_config(tmp_path / 'a', save_param_scheduler=False), monkeypatch)
    assert rates_of(runner)[BATCHES:] == pytest.approx(expected[BATCHES:], rel=1e-12)


@pytest.mark.parametrize(
    ('by_epoch', 'unit'), [(True, 'epoch 3 is done, and train_cfg.max_epochs is 3'), (False, None)]
)
def test_a_finished_training_is_not_begun_again(tmp_path, monkeypatch, capsys, by_epoch, unit):
    options = dict(by_epoch=by_epoch, interval=BATCHES, save_best='tiny/error', rule='less')
    train(config(tmp_path, **options))
    trained = []
    forward = TinyModel.forward
    monkeypatch.setattr(TinyModel, 'forward', lambda self, **kwargs: trained.append(1) or forward(self, **kwargs))
    _, warnings = resume(config(tmp_path, **options), monkeypatch)
    unit = unit or 'iteration 12 is done, and train_cfg.max_iters is 12'
    assert trained == [] and warnings[-1].startswith(f'the training is already finished: {unit}; ')


def test_another_seed_or_batch_is_no_change_of_the_schedule(tmp_path, monkeypatch):
    train(run_config(tmp_path), kill_at=BATCHES + 1)
    cfg = run_config(tmp_path)
    cfg.train_dataloader.batch_size = 8
    cfg.param_scheduler.pop(1)  # counted in iterations
    _, warnings = resume(cfg, monkeypatch)
    assert any('an epoch had 4 batches and has 2 now' in text for text in warnings)


@MODELS.register_module()
class WideModel(TinyModel):
    def __init__(self):
        super().__init__()
        self.body[0], self.body[1], self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 1)


@MODELS.register_module()
class DeepModel(TinyModel):
    def __init__(self):
        super().__init__()
        self.more = nn.Linear(1, 1)


@pytest.mark.parametrize(
    ('before', 'now', 'reason'),
    [
        (
            'TinyModel',
            'WideModel',
            r'it is of another network, 7 weights have another shape, such as body.0.weight \(4, 3, 3, 3\)',
        ),
        ('TinyModel', 'DeepModel', 'it is of another network, 2 of its 11 weights are missing, such as more.weight'),
        ('DeepModel', 'TinyModel', 'it is of another network, 2 weights are not in this model, such as more.weight'),
    ],
)
@pytest.mark.parametrize('ema', [False, True])
def test_a_checkpoint_of_another_network_is_refused(tmp_path, before, now, reason, ema):
    cfg = config(tmp_path, ema=ema)
    cfg.model.type = f'mixdet.{before}'
    train(cfg, kill_at=4)
    cfg = config(tmp_path, ema=ema)
    cfg.model.type = f'mixdet.{now}'
    with pytest.raises(UserError, match=rf'^checkpoint .*iter_3.pth cannot be resumed: {reason}') as error:
        train(cfg, resume=True)
    path = tmp_path / 'iter_3.pth'
    assert str(error.value).endswith(
        f'; to begin a new training with its weights, set load_from={path} and do not resume'
    )
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ('keep', 'reason'),
    [
        (('state_dict',), 'it holds weights only'),
        (('state_dict', 'meta', 'message_hub', 'param_schedulers'), 'it has no optimizer'),
        (('meta', 'message_hub', 'optimizer'), 'it has no state_dict'),
        ((), 'it holds weights only'),
    ],
)
def test_a_file_that_is_no_whole_checkpoint_is_refused(tmp_path, keep, reason):
    train(config(tmp_path), kill_at=4)
    path = tmp_path / 'iter_3.pth'
    whole = torch.load(path, weights_only=weights_only())
    torch.save({key: whole[key] for key in keep}, tmp_path / 'part.pth')
    cfg = config(tmp_path)
    cfg.load_from = str(tmp_path / 'part.pth')
    with pytest.raises(UserError, match=rf'part.pth cannot be resumed: {reason}; to begin'):
        train(cfg, resume=True)


def test_other_names_of_the_classes_are_refused(tmp_path, monkeypatch):
    """As many as before, so that all weights fit: their labels would be swapped without a word."""
    monkeypatch.setattr(TinyDataset, 'METAINFO', dict(classes=('a', 'b')))
    train(config(tmp_path), kill_at=4)
    monkeypatch.setattr(TinyDataset, 'METAINFO', dict(classes=('b', 'a')))
    with pytest.raises(UserError, match='iter_3.pth cannot be resumed: its classes are in another order.*; to begin'):
        train(config(tmp_path), resume=True)


def test_another_optimizer_is_refused(tmp_path):
    train(config(tmp_path), kill_at=4)
    cfg = config(tmp_path)
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=dict(head=dict(lr_mult=0.1)))
    with pytest.raises(
        UserError, match='of another optimizer, with 6 parameters in 1 groups, not 6 parameters in 6 groups; to'
    ):
        train(cfg, resume=True)
    cfg = config(tmp_path)
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.1)
    with pytest.raises(
        UserError, match='it is of another optimizer, with betas, not with dampening, momentum; to begin'
    ):
        train(cfg, resume=True)


def test_several_optimizers():
    """Each has its own state, schedule and changes."""
    model = nn.ModuleDict(dict(a=nn.Linear(1, 1), b=nn.Linear(1, 1)))

    def parts(lr, t_max):
        from mmengine.optim import OptimWrapperDict

        wrappers = {name: OptimWrapper(torch.optim.SGD(part.parameters(), lr=lr)) for name, part in model.items()}
        schedulers = {
            'a': [CosineAnnealingLR(wrappers['a'], T_max=t_max, by_epoch=False)],
            'b': [MultiStepLR(wrappers['b'], milestones=[1, 3], gamma=0.1, by_epoch=True)],
        }
        return OptimWrapperDict(**wrappers), schedulers

    saved, schedulers = parts(0.1, 4)
    checkpoint = dict(
        state_dict=model.state_dict(),
        meta=dict(epoch=1, iter=2),
        message_hub=dict(runtime_info=dict(max_epochs=2)),
        optimizer=copy.deepcopy(saved.state_dict()),
        param_schedulers={name: [part.state_dict() for part in of_one] for name, of_one in schedulers.items()},
    )
    warnings = []
    wrapper, schedulers = parts(0.2, 8)
    runner = SimpleNamespace(
        model=model,
        optim_wrapper=wrapper,
        param_schedulers=schedulers,
        cfg=dict(train_cfg=dict(max_epochs=2)),
        train_loop=SimpleNamespace(max_epochs=2),
        train_dataloader=SimpleNamespace(dataset=None),
        logger=SimpleNamespace(warning=warnings.append),
    )
    check_resumable(runner, checkpoint, 'x.pth')
    settle_changes(runner, checkpoint, from_config=True, batches=2)
    changes = 'optimizer a.lr 0.1 -> 0.2, param_scheduler.0.T_max 4 -> 8, optimizer b.lr 0.1 -> 0.2'
    assert warnings == [f'resuming with the settings of the config: {changes}']
    rates = {name: state['param_groups'][0]['lr'] for name, state in checkpoint['optimizer'].items()}
    assert rates['a'] == pytest.approx(0.2 * (1 + 2**0.5 / 2) / 2)  # a quarter of the cosine
    assert rates['b'] == pytest.approx(0.02)  # after the first milestone
    assert checkpoint['param_schedulers']['a'][0]['last_step'] == 2


def test_mmengines_arguments_of_the_hook_are_passed_on():
    hook = CheckpointHook(3, False, new_schedule=True, max_keep_ckpts=2)
    assert (hook.interval, hook.by_epoch, hook.new_schedule, hook.max_keep_ckpts) == (3, False, True, 2)
