import errno
import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT, detector_batch, run_tool, tiny_detector
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPERS
from tiny_training import BATCHES, EPOCHS, TinyModel, config, train

from mixdet.datasets import make_demo_data
from mixdet.engine.finite import all_finite
from mixdet.engine.nonfinite import NonFiniteHook, examine_step, flat_losses, read_step, total_loss
from mixdet.engine.randomness import set_rng_state
from mixdet.errors import UserError


@pytest.fixture(autouse=True)
def short_start(monkeypatch):
    monkeypatch.setattr('mmengine.runner.Runner._log_env', lambda *args: None)


def examine(change, num_images=4):
    """The report on a step of a small SSDLite after ``change(model, batch)``; the model is left without hooks."""
    model, batch = tiny_detector().train(), detector_batch(num_images=num_images)
    change(model, batch)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    wrapper.initialize_count_status(model, 0, 1)
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    report = examine_step(model, wrapper, batch)
    assert not any(module._forward_hooks for module in model.modules())
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, weights[name], equal_nan=True, rtol=0, atol=0)
    return report


def test_a_finite_step():
    def leave_gradients(model, batch):
        for parameter in model.parameters():  # of an earlier step
            parameter.grad = torch.full_like(parameter, float('nan'))

    for change in (lambda model, batch: None, leave_gradients):
        assert examine(change) == 'images 0, 1, 2, 3; everything is finite this time'


def test_the_image_and_the_layer_are_named():
    def overflow(model, batch):
        batch['inputs'] = [image.float() for image in batch['inputs']]
        batch['inputs'][2][0, 0, 0] = float('nan')

    report = examine(overflow)
    assert report.endswith('the first layer whose output is not finite is backbone.stem.0.conv (Conv2d) for images 2')


def test_weights_that_were_not_finite_before_are_named():
    def spoil(model, batch):
        with torch.no_grad():
            next(model.neck.parameters()).fill_(float('inf'))

    parts = examine(spoil).split('; ')
    assert parts[1].startswith('1 weights were not finite before the step, such as neck.')
    assert parts[2].startswith('the first layer whose output is not finite is neck.')
    assert parts[2].endswith('Conv2d)')  # for all images


def test_bad_boxes_are_shown():
    def spoil(model, batch):
        boxes = [sample.gt_instances.bboxes for sample in batch['data_samples']]
        boxes[1][0] = torch.tensor([1.0, 2, float('nan'), 4])
        boxes[2][1] = torch.tensor([5.0, 6, 5, 8])  # no width
        boxes[2][2] = torch.tensor([5.0, 6, 7, 5])  # negative height
        boxes[3][0] = torch.tensor([float('inf'), 6, 7, 8])
        batch['data_samples'][0].gt_instances = batch['data_samples'][0].gt_instances[:0]

    parts = examine(spoil).split('; ')
    assert parts[1:4] == [
        'image 1 has the box [1.0, 2.0, nan, 4.0]',
        'image 2 has the box [5.0, 6.0, 5.0, 8.0]',
        'image 2 has the box [5.0, 6.0, 7.0, 5.0]',
    ]
    assert parts[4:] == ['the first layer whose output is not finite is bbox_head.loss_bbox (SmoothL1Loss)']


def test_at_most_16_images_are_named():
    def spoil(model, batch):
        batch['data_samples'][17].gt_instances.bboxes[0] = torch.tensor([1.0, 2, 1, 4])

    report = examine(spoil, num_images=18)
    assert report.startswith(f'images {", ".join(map(str, range(16)))} and 2 more; image 17 has the box [1.0, 2.0, 1.0')


def test_losses_are_added_as_mmengine_does():
    losses = dict(
        loss_cls=torch.tensor([1.0, 3.0]),
        loss_bbox=[torch.tensor([1.0, 2.0]), torch.tensor(4.0)],
        acc=torch.tensor(50.0),
        loss_of_no_level=[],
    )
    assert {name: value.item() for name, value in flat_losses(losses)} == dict(loss_cls=2.0, loss_bbox=5.5, acc=50.0)
    expected, _ = TinyModel().parse_losses(losses)
    assert total_loss(losses) == expected == 7.5
    assert total_loss(dict(acc=torch.tensor(1.0))) == 0


def test_files_of_another_kind_are_refused(tmp_path):
    torch.save(dict(state_dict={}, meta={}), tmp_path / 'iter_3.pth')
    with pytest.raises(UserError, match=r'iter_3.pth was not saved by mixdet.NonFiniteHook; give the nonfinite_iter_N'):
        read_step(str(tmp_path / 'iter_3.pth'))


@pytest.fixture
def change_loss(monkeypatch):
    """Has ``TinyModel`` return ``change(loss, number of the step, model)`` in place of its loss."""

    def patch(change):
        steps = itertools.count(1)
        forward = TinyModel.forward

        def changed(self, x, target, mode):
            out = forward(self, x, target, mode)
            return dict(loss=change(out['loss'], next(steps), self)) if mode == 'loss' else out

        monkeypatch.setattr(TinyModel, 'forward', changed)

    return patch


@pytest.mark.parametrize(
    ('value', 'last', 'report'),
    [
        ('nan', 7, 'the output of every layer is finite, the loss is not: loss'),
        ('inf', 6, 'everything is finite this time'),
    ],
)
@pytest.mark.parametrize('accumulate', [1, 4])
def test_the_training_stops_before_the_step(tmp_path, change_loss, accumulate, value, last, report):
    change_loss(lambda loss, step, model: loss * float(value) if 6 <= step <= last else loss)
    weights = {}

    class Weights(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            weights.update({name: value.clone() for name, value in runner.model.state_dict().items()})

    with pytest.raises(UserError) as error:
        train(config(tmp_path, accumulate=accumulate), hooks=[NonFiniteHook(), Weights()])
    path = tmp_path / 'nonfinite_iter_6_rank0.pth'
    assert str(error.value) == (
        f'the loss of iteration 6 is not finite (loss {value}); {report}; the weights were not '
        f'changed; to run the step again: python tools/replay.py CONFIG {path}'
    )
    step = read_step(str(path))
    assert (step['iteration'], step['epoch']) == (6, 1) and len(step['batch']['x']) == 4
    parameters = [name for name in weights if 'running' not in name and 'num_batches' not in name]
    assert all(torch.equal(step['state_dict'][name], weights[name]) for name in parameters)
    set_rng_state(step['rng'])
    assert len(torch.rand(1)) == 1


def test_a_full_disk_does_not_hide_the_cause(tmp_path, change_loss, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, 'No space left on device')

    change_loss(lambda loss, step, model: loss * float('nan') if step == 2 else loss)
    monkeypatch.setattr('pathlib.Path.write_bytes', full)
    with pytest.raises(
        UserError, match='^the loss of iteration 2 is not finite .*; the step cannot be saved .*No space'
    ):
        train(config(tmp_path), hooks=[NonFiniteHook()])
    assert not list(tmp_path.glob('*nonfinite*'))


@pytest.mark.parametrize('accumulate', [1, 4])
def test_gradients_are_checked_unless_told_otherwise(tmp_path, change_loss, accumulate):
    def steep(loss, step, model):
        return loss + (model.head.bias.sum() * 0).clamp(min=0).sqrt()  # + 0, but with an infinite slope

    change_loss(steep)
    with pytest.raises(UserError) as error:
        train(config(tmp_path / 'a', accumulate=accumulate), hooks=[NonFiniteHook()])
    parts = str(error.value).split('; ')
    assert parts[0].startswith('the gradient of iteration 1 is not finite (loss ')
    assert parts[1] == 'the gradient is not finite for head.bias'
    with pytest.raises(
        UserError, match='^the loss of iteration .* is not finite .loss nan.; 1 weights were not finite'
    ):
        train(config(tmp_path / 'b', accumulate=accumulate), hooks=[NonFiniteHook(gradients=False)])


@pytest.mark.parametrize('clip', [None, dict(max_norm=1), dict(type='value', clip_value=1), dict(max_norm=1e30)])
@pytest.mark.parametrize('bad', ['nan', 'inf'])
def test_no_gradient_that_is_not_finite_reaches_the_weights(tmp_path, clip, bad):
    """In the last iteration before a save; an infinite one that is clipped to a value is finite."""

    class Steep(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 5:
                runner.model.head.weight.register_hook(lambda gradient: gradient.clone().fill_(float(bad)))

    cfg = config(tmp_path, max_keep_ckpts=1)
    cfg.optim_wrapper.clip_grad = clip
    hooks = [NonFiniteHook(), Steep()]
    if bad == 'inf' and (clip or {}).get('type') == 'value':
        runner = train(cfg, hooks=hooks)
        assert runner.iter == EPOCHS * BATCHES and torch.isfinite(runner.model.head.weight).all()
        return
    with pytest.raises(
        UserError, match='^the gradient of iteration 6 is not finite .*head.weight; the weights were not'
    ):
        train(cfg, hooks=hooks)
    step = read_step(str(tmp_path / 'nonfinite_iter_6_rank0.pth'))
    assert all(torch.isfinite(value).all() for value in step['state_dict'].values())
    assert [path.name for path in tmp_path.glob('iter_*.pth')] == ['iter_3.pth']


def test_the_norm_of_the_clipping_is_taken(tmp_path, monkeypatch):
    """With it, the gradients are not read; large ones whose norm overflows are finite all the same."""
    read = []
    monkeypatch.setattr('mixdet.engine.nonfinite.all_finite', lambda tensors: read.append(1) or all_finite(tensors))
    cfg = config(tmp_path / 'a')
    cfg.optim_wrapper.clip_grad = dict(max_norm=1)
    train(cfg, hooks=[NonFiniteHook()])
    assert read == []
    train(config(tmp_path / 'b'), hooks=[NonFiniteHook()])
    assert len(read) == EPOCHS * BATCHES
    read.clear()

    class Large(Hook):
        def before_train(self, runner):
            runner.model.head.weight.register_hook(lambda gradient: gradient * 0 + 1e30)

    cfg = config(tmp_path / 'c')
    cfg.optim_wrapper.clip_grad = dict(max_norm=1)
    assert train(cfg, hooks=[NonFiniteHook(), Large()]).iter == EPOCHS * BATCHES and len(read) == EPOCHS * BATCHES


def test_a_loss_outside_a_training_step_is_nobodys_concern(tmp_path):
    """And the hooks on the model are removed after the training."""

    class Outside(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            self.run(runner)

        def before_val_iter(self, runner, batch_idx, data_batch=None):
            self.run(runner)

        def run(self, runner):
            x = [torch.full((3, 8, 8), float('nan'))] * 2
            runner.model.eval()
            runner.model(x=x, target=[torch.tensor(0.0)] * 2, mode='predict')
            runner.model.train()

    hook = NonFiniteHook()
    runner = train(config(tmp_path), hooks=[hook, Outside()])
    assert runner.iter == EPOCHS * BATCHES
    assert not runner.model._forward_hooks and not runner.optim_wrapper.optimizer._optimizer_step_pre_hooks


class ScaledOptimWrapper(OptimWrapper):
    """MMEngine's ``AmpOptimWrapper``, which refuses CPUs: a gradient scaler, whose scale is too large at first."""

    def __init__(self, **options):
        super().__init__(**options)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.0**127)
        self.skipped = 0

    def backward(self, loss, **options):
        self.loss_scaler.scale(loss * 16).backward(**options)
        self._inner_count += 1

    def step(self, **options):
        (group,) = self.optimizer.param_groups
        self.skipped += not all(parameter.grad.isfinite().all() for parameter in group['params'])
        self.loss_scaler.step(self.optimizer, **options)
        self.loss_scaler.update()


@pytest.mark.skipif(tuple(map(int, torch.__version__.split('.')[:2])) < (2, 4), reason='torch before 2.4')
@pytest.mark.parametrize('fused', [False, True])
def test_overflows_under_a_gradient_scaler_are_no_errors(tmp_path, monkeypatch, fused):
    """A fused optimizer skips such a step itself: the hook is asked before it."""
    monkeypatch.setitem(OPTIM_WRAPPERS.module_dict, 'ScaledOptimWrapper', ScaledOptimWrapper)
    cfg = config(tmp_path)
    cfg.optim_wrapper.type = 'ScaledOptimWrapper'
    cfg.optim_wrapper.optimizer.fused = fused
    runner = train(cfg, hooks=[NonFiniteHook(gradients=True)])
    assert runner.iter == EPOCHS * BATCHES and 0 < runner.optim_wrapper.skipped < runner.iter
    assert all(torch.isfinite(value).all() for value in runner.model.state_dict().values())


def test_a_scaler_among_several_optimizers_is_seen():
    model = tiny_detector()
    wrappers = {}
    for name in ('backbone', 'bbox_head'):
        optimizer = torch.optim.SGD(getattr(model, name).parameters(), lr=0.1)
        wrappers[name] = OptimWrapper(optimizer) if name == 'backbone' else ScaledOptimWrapper(optimizer=optimizer)
    hook = NonFiniteHook(gradients=True)
    hook.before_train(SimpleNamespace(model=model, optim_wrapper=OptimWrapperDict(**wrappers)))
    assert hook._scaled and len(hook._handles) == 3


CONFIG = """
_base_ = '{root}/configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py'
model = dict(backbone=dict(_delete_=True, type='mixdet.MobileNetV2', widen_factor=0.25,
                           out_indices=('expansion', 'head')))
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
optim_wrapper = dict(clip_grad=None, optimizer=dict(lr=1e30))
param_scheduler = None
"""


def test_a_diverging_training_is_replayed_with_one_command(tmp_path):
    make_demo_data(tmp_path / 'data/mixdet_demo', {'train': 16, 'val': 4})
    (tmp_path / 'hot.py').write_text(CONFIG.format(root=ROOT))
    done = run_tool('train.py', 'hot.py', cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert 'is not finite' in done.stderr and 'the first layer whose output is not finite is ' in done.stderr
    report = done.stderr.partition('); ')[2].partition('; the weights were not')[0]
    (path,) = (tmp_path / 'work_dirs/hot').glob('nonfinite_iter_*.pth')
    ids = {
        image['id']
        for image in json.loads((tmp_path / 'data/mixdet_demo/annotations/train.json').read_text())['images']
    }
    assert set(map(int, report.partition(';')[0].removeprefix('images ').split(', '))) <= ids
    again = run_tool('replay.py', 'hot.py', path, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip().endswith(report)
