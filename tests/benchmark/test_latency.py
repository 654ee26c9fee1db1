import torch
from torch import nn

from mixdet.benchmark.latency import measure_latency


class Counted(nn.Module):
    def __init__(self, log, name):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.log, self.name = log, name

    def forward(self, x):
        assert not self.training and torch.is_inference_mode_enabled()
        self.log.append((self.name, tuple(x.shape)))
        return self.conv(x)


def test_models_take_turns():
    log = []
    times = measure_latency({name: Counted(log, name) for name in 'ab'}, (8, 16), rounds=3)
    assert log == [(name, (1, 3, 8, 16)) for _ in range(4) for name in 'ab']
    assert times.keys() == {'a', 'b'} and all(value > 0 for value in times.values())
