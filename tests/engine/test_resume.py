"""A run that was killed and resumed ends as an uninterrupted one, bit for bit."""

import itertools

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from tiny_training import BATCHES, EPOCHS, TinyModel, config, difference, log_lines, outcome, train

from mixdet.compat.checkpoints import weights_only
from mixdet.engine import CheckpointHook, NonFiniteHook
from mixdet.engine.resume import ExactResumeHook

SETTINGS = [
    dict(by_epoch=by_epoch, ema=ema, amp=amp, accumulate=accumulate)
    for by_epoch, ema, amp, accumulate in itertools.product((True, False), (False, True), (False, True), (1, 2))
]
WORKERS = [dict(workers=0), dict(workers=2), dict(workers=2, persistent=True)]


@pytest.fixture(autouse=True)
def short_start(monkeypatch):
    """Skip asking compilers and drivers for their versions, as MMEngine does at the start of a run."""
    monkeypatch.setattr('mmengine.runner.Runner._log_env', lambda *args: None)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Outcome and log of the uninterrupted run with the given settings, without workers."""
    known = {}

    def run(**settings):
        key = tuple(sorted(settings.items()))
        if key not in known:
            folder = tmp_path_factory.mktemp('whole')
            known[key] = outcome(train(config(folder, **settings))), log_lines(folder)
        return known[key]

    return run


def name(settings):
    return ' '.join(f'{key}={value}' for key, value in settings.items())


@pytest.mark.parametrize('workers', WORKERS, ids=name)
@pytest.mark.parametrize('settings', SETTINGS, ids=name)
def test_resume_matrix(tmp_path, whole, settings, workers):
    """Saved every 3 iterations; killed in the 6th, within the second epoch, with gradients half accumulated."""
    expected, expected_log = whole(**settings)
    train(config(tmp_path, **settings, **workers), kill_at=BATCHES + 1)
    resumed = train(config(tmp_path, **settings, **workers), resume=True)
    assert resumed.iter == EPOCHS * BATCHES
    assert difference(outcome(resumed), expected) == 0.0
    assert log_lines(tmp_path) == expected_log


def test_several_optimizers(tmp_path, monkeypatch):
    """The second one takes a step after every other iteration, so that its gradients are saved half accumulated."""

    def train_step(self, data, optim_wrapper):
        loss = self(**self.data_preprocessor(data, True), mode='loss')
        loss['loss'].backward()
        first, second = optim_wrapper.values()
        first.step()
        first.zero_grad()
        if MessageHub.get_current_instance().get_info('iter') % 2:
            second.step()
            second.zero_grad()
        return loss

    def build(self, optim_wrapper):
        parts = dict(body=self.model.body, head=self.model.head)
        return OptimWrapperDict(
            **{name: OptimWrapper(torch.optim.SGD(part.parameters(), lr=0.1)) for name, part in parts.items()}
        )

    monkeypatch.setattr(TinyModel, 'train_step', train_step)
    monkeypatch.setattr(Runner, 'build_optim_wrapper', build)

    def run(folder, **options):
        cfg = config(folder)
        cfg.param_scheduler = None
        return train(cfg, hooks=[NonFiniteHook(gradients=True)], **options)

    expected = outcome(run(tmp_path / 'whole'))
    run(tmp_path / 'a', kill_at=5)
    saved = torch.load(tmp_path / 'a/iter_3.pth', weights_only=weights_only())['mixdet_state']
    assert set(saved['processes'][0]['gradients']) == {'head.weight', 'head.bias'}
    assert difference(outcome(run(tmp_path / 'a', resume=True)), expected) == 0.0


@pytest.mark.parametrize('priority', ['VERY_LOW', 'LOWEST', 'NORMAL'])
def test_the_checkpoint_hook_adds_exact_resume_once(tmp_path, monkeypatch, priority):
    calls = []
    before_run = CheckpointHook.before_run
    monkeypatch.setattr(CheckpointHook, 'before_run', lambda self, runner: (calls.append(1), before_run(self, runner)))
    runner = Runner.from_cfg(config(tmp_path, priority=priority))
    runner.call_hook('before_run')
    assert len(calls) == 1
    runner.call_hook('before_run')  # a test after the training
    kinds = [type(hook) for hook in runner.hooks]
    assert len(calls) == 2 and kinds.count(ExactResumeHook) == 1
    assert kinds.index(ExactResumeHook) > kinds.index(CheckpointHook)
