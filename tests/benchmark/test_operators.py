import torch
from helpers import tiny_detector
from torch import nn

from mixdet.benchmark import operators, peers


def test_convolutions_are_told_apart():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 5, groups=8), nn.Conv2d(8, 4, 1), nn.ReLU())
    x = torch.randn(2, 3, 32, 32)
    spent = operators.operator_times(lambda: network(x).sum().backward(), repeats=2)
    assert {f'aten::convolution_backward, {kind}' for kind in ('dense', 'depthwise', '1x1')} <= set(spent)
    assert {name.rpartition(', ')[2] for name in spent if 'conv2d' in name or 'mkldnn_convolution' in name} >= {
        'dense', 'depthwise',
    }  # fmt: skip
    assert 'aten::convolution_backward' not in spent and list(spent.values()) == sorted(spent.values(), reverse=True)


def test_tables_of_every_peer_and_of_those_that_train():
    model = tiny_detector(kernel_sizes=(3, 5))
    compared = [
        peers.eager_peer('ours', model, True, same_network=True),
        peers.fused_peer('ours', model, same_network=True),
        peers.split_peer('ours', model),
    ]
    page = operators.operators_markdown(compared, (64, 64), (1,), train_batch=2, rows=30)
    *_, split = page.split('| operator itself | ms | share |')
    titles = [line.rpartition(', ')[0] for line in page.splitlines() if line.endswith(' ms:')]
    assert titles == [f'{other.name}, inference, batch 1' for other in compared] + [
        f'{name}, training step, batch 2' for name in ('ours', 'ours, split NCHW')
    ]
    assert 'aten::cat' in split and 'aten::convolution_backward' in split
    assert sum(int(line.split('|')[3].strip(' %')) for line in split.splitlines() if line.startswith('| `')) > 60
    assert operators.operators_markdown(compared[1:2], (64, 64)).count('\n') == 1
