import pytest
import torch
from torch import nn

from mixdet.benchmark import latency
from mixdet.benchmark.latency import measure_latency, time_network
from mixdet.benchmark.timing import Timing

pytestmark = pytest.mark.slow


class Counted(nn.Module):
    def __init__(self, log, name):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.log, self.name = log, name

    def forward(self, x):
        assert not self.training and torch.is_inference_mode_enabled()
        self.log.append((self.name, tuple(x.shape)))
        return self.conv(x)


def test_models_take_turns_and_keep_their_modes():
    log = []
    models = {name: Counted(log, name) for name in 'ab'}
    models['b'].eval()
    times = measure_latency(models, (8, 16), rounds=3)
    assert log == [(name, (1, 3, 8, 16)) for _ in range(4) for name in 'ab']
    assert times.keys() == {'a', 'b'} and all(value > 0 for value in times.values())
    assert models['a'].training and not models['b'].training


def test_latency_is_the_median_on_the_clock(monkeypatch):
    def time_in_turns(runs, seconds, rounds):
        assert list(runs) == ['a'] and (seconds, rounds) == (0, 7)
        return {'a': Timing(wall=2.0, low=1.0, high=3.0, cpu=4.0)}

    monkeypatch.setattr(latency, 'time_in_turns', time_in_turns)
    assert measure_latency({'a': nn.Conv2d(3, 2, 1)}, rounds=7) == {'a': 2.0}


def test_without_rounds_nothing_runs():
    log = []
    assert measure_latency({'a': Counted(log, 'a')}, rounds=0) == {} and not log


@pytest.mark.parametrize(('device', 'waits'), [('cpu', 0), ('meta', 3)])
def test_off_the_cpu_each_run_is_waited_for(monkeypatch, device, waits):
    waited = []
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda: waited.append(1))
    model = nn.Conv2d(3, 2, 1)
    measure_latency({'a': model}, (8, 8), device, rounds=2)
    assert model.weight.device.type == device and len(waited) == waits  # with the run that warms up


@pytest.mark.parametrize(('trial', 'rounds'), [(10.0, 30), (100.0, 20), (3000.0, 5)])
def test_a_slow_network_runs_less_often(monkeypatch, trial, rounds):
    """30 times, or for two seconds, but five times at least: a single run says nothing."""
    asked = []

    def time_in_turns(runs, seconds, rounds, warmup=1):
        runs['model']()
        asked.append((seconds, rounds, warmup))
        return {'model': Timing(trial, trial, trial, 5.0, rounds)}

    monkeypatch.setattr(latency, 'time_in_turns', time_in_turns)
    log = []
    model = Counted(log, 'a')
    assert time_network(model, (8, 16)) == Timing(trial, trial, trial, 5.0, rounds)
    assert asked == [(0, 1, 1), (0, rounds, 0)] and log == [('a', (1, 3, 8, 16))] * 2 and model.training
