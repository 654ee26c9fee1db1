"""A run that was killed and resumed ends as an uninterrupted one, bit for bit."""

import copy
import itertools
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, ValLoop
from tiny_training import BATCHES, EPOCHS, TinyDataset, TinyModel, config, difference, log_lines, outcome, train

from mixdet.compat.checkpoints import weights_only
from mixdet.engine import CheckpointHook, NonFiniteHook
from mixdet.engine.resume import STATE, ExactResumeHook, _validation_is_due

pytestmark = pytest.mark.slow

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


def warnings_of(cfg, monkeypatch):
    """The resumed runner of ``cfg``, and what it warned of."""
    seen = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *args, **kwargs: seen.append(str(text)))
    return train(cfg, resume=True), [text for text in seen if 'exact' in text]


def test_another_batch_size_is_warned_of(tmp_path, monkeypatch):
    train(config(tmp_path), kill_at=8)
    cfg = config(tmp_path)
    cfg.train_dataloader.batch_size = 8
    runner, warnings = warnings_of(cfg, monkeypatch)
    assert warnings == ['an epoch had 4 batches and has 2 now: not an exact resume']
    assert runner.iter == 6 + 2 * 2  # the second epoch begins again, and the third


@pytest.mark.parametrize('batch', [2, 8])
@pytest.mark.parametrize('kill_at', [BATCHES, BATCHES + 3])
def test_another_batch_size_counts_to_the_right_end(tmp_path, monkeypatch, batch, kill_at):
    """And again when that run is resumed: no epoch is left out or shortened, and the last iteration is the total."""
    validated, trained = [], []
    run, step = ValLoop.run, TinyModel.train_step
    monkeypatch.setattr(ValLoop, 'run', lambda self: validated.append(self.runner.epoch) or run(self))
    monkeypatch.setattr(TinyModel, 'train_step', lambda *args, **kwargs: trained.append(1) or step(*args, **kwargs))
    train(config(tmp_path, interval=1, accumulate=2), kill_at=kill_at)
    validated.clear()
    trained.clear()

    def again(kill_at=None):
        cfg = config(tmp_path, interval=1, accumulate=2)
        cfg.train_dataloader.batch_size = batch
        return train(cfg, resume=True, kill_at=kill_at)

    batches = 16 // batch
    again(kill_at=kill_at + batches + 1)  # within the third epoch
    runner = again()
    left = 3 if kill_at == BATCHES else 2  # an epoch that was not ended begins again
    assert runner.epoch == EPOCHS and len(trained) == left * batches
    assert runner.iter == runner.max_iters == kill_at + left * batches
    assert validated == ([1] if kill_at == BATCHES else []) + [2, 3]


def test_other_data_are_warned_of(tmp_path, monkeypatch):
    """As many images as before."""
    train(config(tmp_path), kill_at=8)
    load = TinyDataset.load_data_list
    monkeypatch.setattr(TinyDataset, 'load_data_list', lambda self: [dict(row, number=-1) for row in load(self)])
    runner, warnings = warnings_of(config(tmp_path), monkeypatch)
    assert warnings == [
        'the training images or their annotations are not those that were trained before: not an exact resume'
    ]
    assert runner.iter == EPOCHS * BATCHES


def test_other_threads_and_versions_are_warned_of(tmp_path, monkeypatch):
    train(config(tmp_path), kill_at=8)
    path = tmp_path / 'iter_6.pth'
    checkpoint = torch.load(path, weights_only=weights_only())
    now = checkpoint[STATE]['surroundings']
    assert now == {'PyTorch': str(torch.__version__), 'threads': str(torch.get_num_threads())}
    checkpoint[STATE]['surroundings'] = {'PyTorch': '2.1.0', 'threads': '64'}
    torch.save(checkpoint, path)
    _, warnings = warnings_of(config(tmp_path), monkeypatch)
    assert warnings == [
        f'PyTorch 2.1.0 -> {now["PyTorch"]}, threads 64 -> {now["threads"]}: not an exact resume, sums are rounded in '
        'another way'
    ]


def test_checkpoints_of_an_earlier_version_resume_exactly(tmp_path, whole, monkeypatch):
    """Without a fingerprint, an attempt and a first iteration."""
    train(config(tmp_path), kill_at=8)
    path = tmp_path / 'iter_6.pth'
    checkpoint = torch.load(path, weights_only=weights_only())
    checkpoint[STATE] = {key: checkpoint[STATE][key] for key in ('validated', 'batches', 'processes')}
    del checkpoint['meta']['attempt']
    torch.save(checkpoint, path)
    runner, warnings = warnings_of(config(tmp_path), monkeypatch)
    assert warnings == [] and difference(outcome(runner), whole()[0]) == 0.0


def test_another_number_of_processes_is_warned_of(tmp_path, monkeypatch):
    train(config(tmp_path), kill_at=8)
    path = tmp_path / 'iter_6.pth'
    checkpoint = torch.load(path, weights_only=weights_only())
    checkpoint[STATE]['processes'] *= 2
    torch.save(checkpoint, path)
    restored = []
    monkeypatch.setattr('mixdet.engine.resume.set_rng_state', restored.append)
    runner, warnings = warnings_of(config(tmp_path), monkeypatch)
    assert warnings == ['2 processes trained before and 1 do now: not an exact resume']
    assert runner.iter == EPOCHS * BATCHES and restored == []


def test_each_process_restores_its_own_state(tmp_path, monkeypatch):
    train(config(tmp_path, accumulate=2), kill_at=8)
    path = tmp_path / 'iter_3.pth'
    checkpoint = torch.load(path, weights_only=weights_only())
    mine, other = checkpoint[STATE]['processes'][0], copy.deepcopy(checkpoint[STATE]['processes'][0])
    other['rng']['torch'] = torch.zeros(1)
    checkpoint[STATE]['processes'] = [other, mine]
    torch.save(checkpoint, path)
    monkeypatch.setattr('mixdet.engine.resume.get_world_size', lambda: 2)
    monkeypatch.setattr('mixdet.engine.resume.get_rank', lambda: 1)
    cfg = config(tmp_path, accumulate=2)
    cfg.load_from = str(path)
    runner, warnings = warnings_of(cfg, monkeypatch)
    assert warnings == [] and runner.iter == EPOCHS * BATCHES


@pytest.mark.parametrize(('save_best', 'kill_at', 'repeated'), [(None, BATCHES, True), ('tiny/error', BATCHES, False)])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_a_due_validation_is_done_once(tmp_path, monkeypatch, by_epoch, save_best, kill_at, repeated):
    """The checkpoint was saved before the validation; ``save_best`` saves it again with the result."""
    options = dict(by_epoch=by_epoch, interval=BATCHES, save_best=save_best, rule='less')
    train(config(tmp_path, **options), kill_at=kill_at)
    validated = []
    run = ValLoop.run
    monkeypatch.setattr(ValLoop, 'run', lambda self: validated.append(self.runner.iter) or run(self))
    train(config(tmp_path, **options), resume=True)
    assert validated == [BATCHES] * repeated + [2 * BATCHES, 3 * BATCHES]


def due(kind, done, total, begin=1, interval=2, **more):
    """Whether a validation is due after ``done`` epochs of 4 iterations, or ``done`` iterations."""
    loop = object.__new__(kind)
    loop.val_begin, loop.val_interval = begin, interval
    loop.dynamic_milestones, loop.dynamic_intervals = [0], [interval]
    if kind is EpochBasedTrainLoop:
        loop._epoch, loop._max_epochs, loop._iter, loop._max_iters = done, total, 4 * done, 4 * total
        loop.dataloader = range(4)
    else:
        loop._epoch, loop._iter, loop._max_iters = 0, done, total
    vars(loop).update(more)
    return _validation_is_due(SimpleNamespace(train_loop=loop, val_loop=Mock()))


@pytest.mark.parametrize('kind', [EpochBasedTrainLoop, IterBasedTrainLoop])
def test_when_a_validation_is_due(kind):
    assert [due(kind, done, 7) for done in range(8)] == [False, False, True, False, True, False, True, True]
    assert [due(kind, done, 7, begin=5, interval=1) for done in range(8)] == [False] * 5 + [True] * 3
    assert due(kind, 0, 7, begin=0, interval=1) is False  # nothing was trained
    # the interval of the present epoch or iteration, as MMEngine chooses it
    assert due(kind, 3, 7, dynamic_milestones=[0, 3], dynamic_intervals=[2, 3]) is True
    loop = SimpleNamespace(train_loop=object.__new__(kind), val_loop=None)
    assert _validation_is_due(loop) is False
