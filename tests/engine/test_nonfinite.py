import json
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT, detector_batch, run_tool, tiny_detector
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPERS
from tiny_training import BATCHES, EPOCHS, config, train

from mixdet.compat.checkpoints import weights_only
from mixdet.datasets import make_demo_data
from mixdet.engine.nonfinite import NonFiniteHook, examine_step
from mixdet.errors import UserError


@pytest.fixture(autouse=True)
def short_start(monkeypatch):
    monkeypatch.setattr('mmengine.runner.Runner._log_env', lambda *args: None)


def examine(change):
    """The report on a step of a small SSDLite after ``change(model, batch)``."""
    model, batch = tiny_detector().train(), detector_batch(num_images=4)
    change(model, batch)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    wrapper.initialize_count_status(model, 0, 1)
    return examine_step(model, wrapper, batch)


def test_a_finite_step():
    assert examine(lambda model, batch: None) == 'images 0, 1, 2, 3; everything is finite this time'


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

    report = examine(spoil)
    assert '1 weights were not finite before the step, such as neck.' in report
    assert 'the first layer whose output is not finite is neck.' in report


def test_a_bad_box_is_shown():
    def spoil(model, batch):
        batch['data_samples'][1].gt_instances.bboxes[0, 2] = float('nan')

    assert '; image 1 has the box [' in examine(spoil)


def test_the_training_stops_before_the_step(tmp_path, monkeypatch):
    from tiny_training import TinyModel

    forward = TinyModel.forward

    def broken(self, x, target, mode):
        out = forward(self, x, target, mode)
        if mode == 'loss' and self.calls == 5:
            out = dict(loss=out['loss'] * float('nan'))
        self.calls += mode == 'loss'
        return out

    monkeypatch.setattr(TinyModel, 'forward', broken)
    monkeypatch.setattr(TinyModel, 'calls', 0, raising=False)
    for accumulate in (1, 4):
        folder = tmp_path / str(accumulate)
        with pytest.raises(UserError, match=r'the loss of iteration 6 is not finite \(loss nan\)') as error:
            train(config(folder, accumulate=accumulate), hooks=[NonFiniteHook()])
        path = folder / 'nonfinite_iter_6_rank0.pth'
        assert str(path) in str(error.value) and '\n' not in str(error.value)
        step = torch.load(path, weights_only=weights_only())
        assert step['iteration'] == 6 and all(torch.isfinite(value).all() for value in step['state_dict'].values())


def test_gradients_are_checked_on_request(tmp_path, monkeypatch):
    from tiny_training import TinyModel

    forward = TinyModel.forward

    def broken(self, x, target, mode):
        out = forward(self, x, target, mode)
        if mode == 'loss':
            zero = self.head.bias.sum() * 0
            out = dict(loss=out['loss'] + zero.clamp(min=0).sqrt())  # 0, but its slope is infinite
        return out

    monkeypatch.setattr(TinyModel, 'forward', broken)
    train(config(tmp_path / 'a'), hooks=[])
    with pytest.raises(UserError, match=r'the gradient of iteration 1 is not finite .* is not finite for head.bias'):
        train(config(tmp_path / 'b'), hooks=[NonFiniteHook(gradients=True)])


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
