import pytest
from torch import nn

from mixdet.layers.modes import evaluation_mode


def test_every_submodule_gets_its_own_mode_back():
    frozen = nn.BatchNorm2d(3).eval()
    model = nn.Sequential(nn.Conv2d(3, 3, 1), frozen, nn.Sequential(nn.Dropout()))
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, False, True, True]
    with pytest.raises(RuntimeError, match='stop'), evaluation_mode(model):
        raise RuntimeError('stop')
    assert model.training and not frozen.training


def test_a_module_whose_eval_returns_nothing():
    class Backbone(nn.Module):
        def train(self, mode=True):
            super().train(mode)

    model = Backbone()
    with evaluation_mode(model):
        assert not model.training
    assert model.training
