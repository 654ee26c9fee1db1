"""Trainings of the tiny model of tests/tiny_training.py from a checkpoint with a folded batch-norm."""

import pytest
import tiny_training
import torch
from mmengine.logging import MMLogger
from torch import nn

from mixdet.weights.folded import folded_norms
from mixdet.weights.hook import FoldedBatchNormHook


@pytest.fixture
def warnings(monkeypatch):
    """The warnings that are logged."""
    found = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message: found.append(message))
    return found


@pytest.fixture
def folded(tmp_path):
    """A checkpoint of the tiny model whose batch-norm has mean 0, variance 1 and a shift."""
    torch.manual_seed(0)
    model = tiny_training.TinyModel()
    nn.init.normal_(model.body[1].bias)
    assert list(folded_norms(model)) == ['body.1']
    path = tmp_path / 'folded.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


class Snapshot(tiny_training.Hook):
    """Keeps the weights with which the training begins."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.state = {name: value.clone() for name, value in runner.model.state_dict().items()}


def start(tmp_path, load_from):
    """The weights with which a training with the hook begins."""
    cfg = tiny_training.config(tmp_path / 'run')
    cfg.load_from = str(load_from)
    cfg.custom_hooks = [dict(type='mixdet.FoldedBatchNormHook')]
    snapshot = Snapshot()
    tiny_training.train(cfg, kill_at=0, hooks=[snapshot])
    return snapshot.state


def predict(state, x):
    model = tiny_training.TinyModel()
    model.load_state_dict(state)
    return model.eval().body(x)


def test_a_fresh_training_starts_with_statistics_and_the_same_function(tmp_path, folded, warnings):
    x = torch.rand(5, 3, 8, 8)
    before = torch.load(folded)['state_dict']
    state = start(tmp_path, folded)
    torch.testing.assert_close(predict(state, x), predict(before, x), rtol=1e-4, atol=1e-5)
    assert state['body.1.running_mean'].abs().max() > 1e-3 and (state['body.1.running_var'] < 0.9).all()
    again = start(tmp_path / 'again', folded)
    assert all(torch.equal(again[name], value) for name, value in state.items())  # the same images
    assert '1 batch-norms of the pretrained weights were folded' in str(warnings)


def test_data_and_random_numbers_of_the_training_do_not_change(tmp_path, folded):
    """Weights that are not folded are trained alike with and without the hook, and with it resumes exactly."""
    plain = tiny_training.outcome(tiny_training.train(tiny_training.config(tmp_path / 'plain')))
    cfg = tiny_training.config(tmp_path / 'hook')
    cfg.custom_hooks = [dict(type='mixdet.FoldedBatchNormHook')]
    assert tiny_training.difference(plain, tiny_training.outcome(tiny_training.train(cfg))) == 0

    def config(name):
        cfg = tiny_training.config(tmp_path / name)
        cfg.load_from, cfg.custom_hooks = str(folded), [dict(type='mixdet.FoldedBatchNormHook')]
        return cfg

    whole = tiny_training.outcome(tiny_training.train(config('whole')))
    tiny_training.train(config('cut'), kill_at=4)
    cfg = config('cut')
    cfg.load_from = None
    assert tiny_training.difference(whole, tiny_training.outcome(tiny_training.train(cfg, resume=True))) == 0


def test_a_resumed_training_is_left_alone(tmp_path):
    cfg = tiny_training.config(tmp_path)
    runner = tiny_training.train(cfg, kill_at=4)
    path = next(tmp_path.glob('iter_*.pth'))
    checkpoint = torch.load(path, weights_only=False)
    state = checkpoint['state_dict']
    state['body.1.running_mean'].zero_(), state['body.1.running_var'].fill_(1)
    torch.save(checkpoint, path)
    cfg = tiny_training.config(tmp_path)
    cfg.custom_hooks = [dict(type='mixdet.FoldedBatchNormHook')]
    snapshot = Snapshot()
    runner = tiny_training.train(cfg, resume=True, kill_at=runner.iter, hooks=[snapshot])
    assert snapshot.state['body.1.running_mean'].abs().max() == 0


def test_frozen_layers_and_failures_change_nothing(tmp_path, folded, monkeypatch, warnings):
    before = torch.load(folded)['state_dict']
    monkeypatch.setattr(FoldedBatchNormHook, '_pass_images', lambda *_: 1 / 0)
    state = start(tmp_path, folded)
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert 'ZeroDivisionError' in str(warnings) and '1 batch-norms are folded' in str(warnings)
    warnings.clear()

    def train(self, mode=True):
        nn.Module.train(self, mode)
        self.body[1].eval()
        return self

    monkeypatch.setattr(tiny_training.TinyModel, 'train', train)
    state = start(tmp_path / 'frozen', folded)
    assert all(torch.equal(state[name], value) for name, value in before.items()) and not warnings


def test_no_images_only_say_so(tmp_path, folded, warnings):
    before = torch.load(folded)['state_dict']
    cfg = tiny_training.config(tmp_path)
    cfg.load_from = str(folded)
    snapshot = Snapshot()
    tiny_training.train(cfg, kill_at=0, hooks=[FoldedBatchNormHook(num_images=0), snapshot])
    assert all(torch.equal(snapshot.state[name], value) for name, value in before.items())
    assert '1 batch-norms are folded (mean 0, variance 1)' in str(warnings)
    with pytest.raises(ValueError, match='num_images=-1: must be at least 0'):
        FoldedBatchNormHook(num_images=-1)
