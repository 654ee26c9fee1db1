"""The explorer's differences against counts made from the MobileNetV2 paper's table."""

import csv

import pytest

from mixdet.layers import split_channels
from mixdet.reproduction.ablations import plot_costs, variant_costs, write_costs_csv

# (expansion, channels, repeats, stride): table 2 of the MobileNetV2 paper
TABLE = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def depthwise_layers(size):
    """(channels, output side, stride) of MobileNetV2's 17 depthwise layers for images of ``size`` px."""
    layers, channels, side = [], 32, size // 2
    for expansion, out_channels, repeats, stride in TABLE:
        for i in range(repeats):
            side //= stride if i == 0 else 1
            layers.append((channels * expansion, side, stride if i == 0 else 1))
            channels = out_channels
    return layers


def test_one_layer_at_a_time_as_counted_by_hand():
    costs = {cost.variant: cost for cost in variant_costs('mobilenetv2', 5, 224, rounds=0)}
    for i, (channels, side, _) in enumerate(depthwise_layers(224), 1):
        whole = channels * (9 * 9 - 3 * 3)
        mixed = sum(n * (k * k - 9) for n, k in zip(split_channels(channels, 4), (3, 5, 7, 9)))
        for variant, weights in (('depthwise9x9', whole), ('mixconv3579', mixed)):
            cost = costs[f'layer{i}-{variant}']
            assert (cost.delta_params, cost.delta_macs) == (weights, weights * side * side)
    assert len(costs) == 35 and costs['baseline3x3'].delta_params == costs['baseline3x3'].delta_macs == 0


def test_splits_and_dilation_as_counted_by_hand():
    costs = {cost.variant: cost for cost in variant_costs('mobilenetv2', 6, 224, rounds=0)}
    for variant, split in (('mixconv357', 'equal'), ('mixconv357-exp', 'exponential'), ('mixconv357-dilated', 'equal')):
        params = macs = 0
        for channels, side, stride in depthwise_layers(224):
            kernels = (3, 3, 3) if variant.endswith('dilated') and stride == 1 else (3, 5, 7)
            weights = sum(n * (k * k - 9) for n, k in zip(split_channels(channels, 3, split), kernels))
            params, macs = params + weights, macs + weights * side * side
        assert (costs[variant].delta_params, costs[variant].delta_macs) == (params, macs)


@pytest.mark.parametrize(('network', 'figure'), [('mobilenetv1', 4), ('mobilenetv2', 5), ('mobilenetv2', 6)])
def test_csv_and_plot(network, figure, tmp_path):
    costs = variant_costs(network, figure, 64, rounds=1, results={'mixconv35': 0.22})
    assert all(cost.latency_ms > 0 for cost in costs) and costs[0].delta_ms == 0
    assert all((cost.ap == 0.22) == (cost.variant == 'mixconv35') for cost in costs)
    write_costs_csv(costs, tmp_path / 'c.csv')
    with (tmp_path / 'c.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row['delta_macs']) for row in rows] == [cost.delta_macs for cost in costs]
    plot_costs(costs, network, figure, tmp_path / 'c.png')
    assert (tmp_path / 'c.png').read_bytes().startswith(b'\x89PNG')
