import itertools

import pytest
import torch
from helpers import import_timm
from parity import require_native

from mixdet.benchmark import mixconv
from mixdet.benchmark.timing import Timing
from mixdet.errors import UserError
from mixdet.layers import MixConv2d, implementations

pytestmark = pytest.mark.slow

CASE = mixconv.Case(24, 10, 'k357', 2, 1)


def test_the_paper_shapes():
    assert len(mixconv.cases()) == 7 * 3 * 2 * 2
    assert str(mixconv.cases()[0]) == '144@80 k35 s1 b1'


def test_baseline_is_what_timm_computes():
    timm = import_timm()
    peer = timm.layers.MixedConv2d(24, 24, [3, 5, 7], stride=2, depthwise=True)
    layer = MixConv2d(24, 24, (3, 5, 7), stride=2, impl='split')
    layer.load_state_dict({f'convs.{key}': value for key, value in peer.state_dict().items()})
    x = torch.randn(2, 24, 11, 10)
    assert torch.equal(layer(x), peer(x))
    assert mixconv.CPU_IMPLEMENTATIONS[mixconv.BASELINE] == mixconv.Implementation('split', channels_last=False)


def test_every_implementation_is_measured_in_its_memory_format(monkeypatch):
    require_native()
    seen = set()
    forward = MixConv2d.forward

    def note(layer, x):
        if x.dtype == torch.float32:
            channels_last = x.is_contiguous(memory_format=torch.channels_last)
            seen.add((layer.impl, channels_last, torch.is_grad_enabled()))
        return forward(layer, x)

    monkeypatch.setattr(MixConv2d, 'forward', note)
    timings = mixconv.time_mixconv(CASE, mixconv.CPU_IMPLEMENTATIONS, 0.0)
    assert timings.case == CASE
    assert list(timings.forward) == list(timings.training) == list(mixconv.CPU_IMPLEMENTATIONS)
    assert seen == set(itertools.product(('split', 'padded', 'native'), (True, False), (True, False)))


def test_a_wrong_implementation_is_not_timed(monkeypatch):
    monkeypatch.setattr(implementations, 'padded', lambda layer, x: implementations.split(layer, x) * 1.001)
    with pytest.raises(UserError, match=r'padded is wrong by 1\.0e-03 .* 24@10 k357 s2 b1'):
        mixconv.time_mixconv(CASE, {'padded': mixconv.Implementation('padded', True)}, 0.0)


def wrong_input_gradient(layer, x):
    return implementations.split(layer, x + 0.001 * (x - x.detach()))


def wrong_weight_gradient(layer, x):
    out = implementations.split(layer, x.detach())
    return implementations.split(layer, x) + 0.001 * (out - out.detach())


@pytest.mark.parametrize('wrong', [wrong_input_gradient, wrong_weight_gradient])
def test_wrong_gradients_are_noticed(monkeypatch, wrong):
    monkeypatch.setattr(implementations, 'padded', wrong)
    with pytest.raises(UserError, match=r'padded is wrong by 1\.0e-03'):
        mixconv.time_mixconv(CASE, {'padded': mixconv.Implementation('padded', True)}, 0.0)


@pytest.fixture
def results():
    """Two layers; the second implementation takes half and a quarter of the baseline's time, and all its CPU time."""

    def timings(wall):
        return {
            mixconv.BASELINE: Timing(wall=8.0, low=7.0, high=9.0, cpu=8.0),
            'native': Timing(wall=wall, low=wall - 1, high=wall + 1, cpu=8.0),
        }

    return [mixconv.CaseTimings(case, timings(wall), timings(wall / 2)) for case, wall in zip(mixconv.cases(), (4, 2))]


def test_ratios(results):
    assert mixconv.ratios(results, 'native', 'forward') == [0.5, 0.25]
    assert mixconv.ratios(results, 'native', 'training') == [0.25, 0.125]
    assert mixconv.ratios(results, 'native', 'training', 'cpu') == mixconv.ratios(results, mixconv.BASELINE, 'forward')


def test_table_of_layers(results):
    lines = mixconv.mixconv_markdown(results).splitlines()
    assert lines[2].startswith('Time over that of split NCHW in 2 layers')
    assert lines[6] == r'| native | 0.38 (0.50) \| 1.00 (1.00) | 0.19 (0.25) \| 1.00 (1.00) |'
    assert lines[8:13] == [
        'Forward, ms, median [quartiles]:',
        '',
        '| layer | split NCHW | native |',
        '|---|---|---|',
        '| 144@80 k35 s1 b1 | 8 [7, 9] | 4 [3, 5] |',
    ]
    assert 'Forward and backward, ms, median [quartiles]:' in lines and torch.__version__ in lines[0]
    assert mixconv.layer_table(results, 'forward', [0.5, 0.25])[3:] == [
        '| layer | floor | split NCHW | native |',
        '|---|---|---|---|',
        '| 144@80 k35 s1 b1 | 0.5 | 8 [7, 9] | 4 [3, 5] |',
        '| 144@80 k35 s1 b8 | 0.25 | 8 [7, 9] | 2 [1, 3] |',
    ]


def test_plot_of_layers(results, tmp_path):
    mixconv.plot_mixconv(results, tmp_path / 'mixconv.png')
    assert (tmp_path / 'mixconv.png').read_bytes().startswith(b'\x89PNG')
