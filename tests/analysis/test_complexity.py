import pytest
import torch
from helpers import tiny_detector
from torch import nn

from mixdet.analysis import count_complexity


def test_counts_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 3 * 8 * 9 weights, 8 biases, 16 x 16 outputs
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    result = count_complexity(model, (32, 32))
    assert result.params == (216 + 8) + 16 + 200 + (80 + 10)
    assert result.macs == 216 * 256 + 200 * 256 + 80


def test_a_shared_layer_counts_each_time_it_runs():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.unused = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(self.conv(x))

    result = count_complexity(Twice(), (4, 4))
    assert result.params == 24 and result.macs == 2 * 9 * 16


def test_leaves_the_model_as_it_was():
    model = tiny_detector(frozen_stages=1).train()
    before = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    count_complexity(model, (64, 64))
    assert [module.training for module in model.modules()] == before
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_scales_with_the_image():
    model = tiny_detector()
    small, large = count_complexity(model, (64, 64)), count_complexity(model, (128, 128))
    assert small.params == large.params and large.macs / small.macs == pytest.approx(4, rel=0.1)
