"""A run that was killed and resumed ends as one that was not, bit for bit."""

import itertools

import pytest
from mmengine.runner import Runner
from tiny_training import BATCHES, EPOCHS, config, difference, log_lines, outcome, train

from mixdet.engine import CheckpointHook
from mixdet.engine.resume import ExactResumeHook

SETTINGS = [
    dict(by_epoch=by_epoch, ema=ema, amp=amp, accumulate=accumulate)
    for by_epoch, ema, amp, accumulate in itertools.product((True, False), (False, True), (False, True), (1, 2))
]
WORKERS = [dict(workers=0), dict(workers=2), dict(workers=2, persistent=True)]


@pytest.fixture(autouse=True)
def short_start(monkeypatch):
    """MMEngine asks compilers and drivers for their versions at the start of a run."""
    monkeypatch.setattr('mmengine.runner.Runner._log_env', lambda *args: None)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Outcome and log of the uninterrupted run with given settings; without workers."""
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
