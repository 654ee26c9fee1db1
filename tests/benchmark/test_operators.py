import pytest
import torch
from helpers import tiny_detector
from torch import nn

from mixdet.benchmark import operators, peers

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(('operator', 'shapes', 'name'), [
    ('aten::mkldnn_convolution', [[1, 8, 9, 9], [16, 8, 1, 1]], 'aten::mkldnn_convolution, 1x1'),
    ('aten::mkldnn_convolution', [[1, 8, 9, 9], [8, 1, 1, 5]], 'aten::mkldnn_convolution, depthwise'),
    ('aten::mkldnn_convolution', [[1, 8, 9, 9], [16, 8, 1, 3]], 'aten::mkldnn_convolution, dense'),
    ('aten::convolution_backward', [[1, 8, 9, 9], [1, 8, 9, 9], [16, 8, 3, 3]], 'aten::convolution_backward, dense'),
    ('aten::convolution_backward', [[1, 8, 9], [1, 8, 9], [16, 8, 3]], 'aten::convolution_backward'),
    ('aten::mkldnn_convolution', [[1, 8, 9, 9]], 'aten::mkldnn_convolution'),
    ('aten::add', [[1, 8, 9, 9], [16, 8, 1, 1]], 'aten::add'),
])  # fmt: skip
def test_convolutions_are_named_by_their_weights(operator, shapes, name):
    assert operators._operator_name(operator, shapes) == name


def test_convolutions_are_told_apart():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 5, groups=8), nn.Conv2d(8, 4, 1), nn.ReLU())
    x = torch.randn(2, 3, 32, 32)
    spent = operators.operator_times(lambda: network(x).sum().backward(), repeats=2, warmup=0)
    assert {f'aten::convolution_backward, {kind}' for kind in ('dense', 'depthwise', '1x1')} <= set(spent)
    assert {name.rpartition(', ')[2] for name in spent if 'conv2d' in name or 'mkldnn_convolution' in name} >= {
        'dense', 'depthwise',
    }  # fmt: skip
    assert 'aten::convolution_backward' not in spent and list(spent.values()) == sorted(spent.values(), reverse=True)


def test_times_are_the_mean_of_the_calls_after_the_warm_up(monkeypatch):
    """A profile of one operator, whose calls take 100, 200, 300 ... microseconds."""
    calls = []

    class Profile:
        def __init__(self, **options):
            assert options['record_shapes']

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def key_averages(self, group_by_input_shape):
            event = dict(key='aten::add', input_shapes=[], self_cpu_time_total=100.0 * len(calls))
            return [type('Event', (), event)] * 2  # of two shapes

    monkeypatch.setattr(operators, 'profile', Profile)
    spent = operators.operator_times(lambda: calls.append(1), repeats=2, warmup=3)
    assert len(calls) == 5 and spent == {'aten::add': pytest.approx(2 * (0.4 + 0.5) / 2)}


def test_tables_of_every_peer_and_of_those_that_train():
    model = tiny_detector(kernel_sizes=(3, 5))
    compared = [
        peers.eager_peer('ours', model, True, same_network=True),
        peers.fused_peer('ours', model, same_network=True),
        peers.split_peer('ours', model),
    ]
    page = operators.operators_markdown(compared, (64, 64), (1,), train_batch=2, rows=30, repeats=1, warmup=0)
    *_, split = page.split('| operator itself | ms | share |')
    titles = [line.rpartition(', ')[0] for line in page.splitlines() if line.endswith(' ms:')]
    assert titles == [f'{peer.name}, inference, batch 1' for peer in compared] + [
        f'{name}, training step, batch 2' for name in ('ours', 'ours, split NCHW')
    ]
    assert 'aten::cat' in split and 'aten::convolution_backward' in split
    assert sum(int(line.split('|')[3].strip(' %')) for line in split.splitlines() if line.startswith('| `')) > 60
    assert operators.operators_markdown(compared[1:2], (64, 64)).count('\n') == 1


def test_the_table_has_the_largest_operators(monkeypatch):
    monkeypatch.setattr(operators, 'operator_times', lambda work, repeats, warmup: {'a': 6.0, 'b': 3.0, 'c': 1.0})
    peer = peers.eager_peer('ours', nn.Conv2d(3, 2, 1), False)
    lines = operators.operators_markdown([peer], (8, 8), (1,), rows=2).splitlines()
    assert lines[2] == 'ours, inference, batch 1, 10 ms:'
    assert lines[6:] == ['| `a` | 6.00 | 60% |', '| `b` | 3.00 | 30% |']
    onnx = peers.Peer('ONNX Runtime', object.__new__(peers.OnnxNetwork), None, False, True)
    assert operators.operators_markdown([onnx], (8, 8), (1,)).count('\n') == 1
