from types import SimpleNamespace

import pytest
import torch
from helpers import detector_batch, tiny_detector
from torch import nn

from mixdet.deploy.hook import FuseHook


def found_by(model, batch):
    with torch.no_grad():
        return [sample.pred_instances for sample in model.eval().test_step(batch)]


def test_a_test_runs_the_fused_network_and_leaves_the_model():
    model = tiny_detector(kernel_sizes=(3, 5))
    runner, hook, batch = SimpleNamespace(model=model), FuseHook(), detector_batch()
    expected = found_by(model, batch)
    hook.before_test_epoch(runner)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in runner.model.modules())
    weight = runner.model.backbone.stem[0].conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    for wanted, actual in zip(expected, found_by(runner.model, batch)):
        torch.testing.assert_close(actual.scores, wanted.scores, rtol=1e-4, atol=1e-5)
    hook.after_test_epoch(runner)
    assert runner.model is model and any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize('model', [nn.Identity(), nn.Conv2d(1, 1, 1, device='meta')])
def test_other_models_stay(model):
    runner, hook = SimpleNamespace(model=model), FuseHook()
    hook.before_test_epoch(runner)
    assert runner.model is model
    hook.after_test_epoch(runner)
    assert runner.model is model
