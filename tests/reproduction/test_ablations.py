"""The explorer's differences against counts made from the MobileNetV2 paper's table."""

import csv

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mixdet.layers import split_channels
from mixdet.reproduction import ablations
from mixdet.reproduction.ablations import VariantCost, plot_costs, variant_costs, write_costs_csv

pytestmark = pytest.mark.slow

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


@pytest.fixture(scope='module')
def single_layers():
    """The variants of figure 5, a single layer's kernels replaced."""
    return variant_costs('mobilenetv2', 5, 224, rounds=0)


def test_one_layer_at_a_time_as_counted_by_hand(single_layers):
    costs = {cost.variant: cost for cost in single_layers}
    for i, (channels, side, _) in enumerate(depthwise_layers(224), 1):
        whole = channels * (9 * 9 - 3 * 3)
        mixed = sum(n * (k * k - 9) for n, k in zip(split_channels(channels, 4), (3, 5, 7, 9)))
        for variant, weights in (('depthwise9x9', whole), ('mixconv3579', mixed)):
            cost = costs[f'layer{i}-{variant}']
            assert (cost.delta_params, cost.delta_macs) == (weights, weights * side * side)
    assert len(costs) == 35 and costs['baseline3x3'].delta_params == costs['baseline3x3'].delta_macs == 0


def test_splits_and_dilation_as_counted_by_hand():
    costs = {cost.variant: cost for cost in variant_costs('mobilenetv2', 6, 224, rounds=0)}
    base = costs['baseline3x3']
    for variant, split in (('mixconv357', 'equal'), ('mixconv357-exp', 'exponential'), ('mixconv357-dilated', 'equal')):
        params = macs = 0
        for channels, side, stride in depthwise_layers(224):
            kernels = (3, 3, 3) if variant.endswith('dilated') and stride == 1 else (3, 5, 7)
            weights = sum(n * (k * k - 9) for n, k in zip(split_channels(channels, 3, split), kernels))
            params, macs = params + weights, macs + weights * side * side
        cost = costs[variant]
        assert (cost.delta_params, cost.delta_macs) == (params, macs)
        assert (cost.params, cost.macs) == (base.params + params, base.macs + macs)
    assert all(cost.latency_ms is cost.delta_ms is cost.ap is None for cost in costs.values())


def test_latency_is_compared_with_the_baselines(monkeypatch, tmp_path):
    def measure_latency(models, size, rounds):
        assert (size, rounds) == ((64, 64), 7)
        return {name: 10.0 + number for number, name in enumerate(models)}

    monkeypatch.setattr(ablations, 'measure_latency', measure_latency)
    costs = variant_costs('mobilenetv1', 4, 64, rounds=7, results={'mixconv35': 0.22})
    assert [cost.latency_ms for cost in costs] == [10.0 + number for number in range(11)]
    assert [cost.delta_ms for cost in costs] == list(range(11)) and costs[0].variant == 'baseline3x3'
    assert {cost.variant: cost.ap for cost in costs if cost.ap is not None} == {'mixconv35': 0.22}
    write_costs_csv(costs, tmp_path / 'c.csv')
    with (tmp_path / 'c.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row['delta_macs']) for row in rows] == [cost.delta_macs for cost in costs]
    assert rows[1]['latency_ms'] == '11.0' and rows[0]['ap'] == ''


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn, by the panel's label: title of each curve -> its points."""
    panels = {}

    class Panel(Axes):
        def plot(self, x, y, **style):
            self.curves = {**getattr(self, 'curves', {}), style['label']: list(zip(x, y))}
            return super().plot(x, y, **style)

        def set_ylabel(self, label):
            panels[label] = self.curves
            return super().set_ylabel(label)

    original = Figure.subplots

    def subplots(self, *args, **options):
        return original(self, *args, subplot_kw=dict(axes_class=Panel), **options)

    monkeypatch.setattr(Figure, 'subplots', subplots)
    return panels


def test_curves_over_kernel_sizes(drawn, tmp_path):
    costs = [
        VariantCost('baseline3x3', 0, int(1e9), 0, 0, ap=0.2),
        VariantCost('depthwise5x5', 0, int(2e9), 0, 0, ap=0.3),
        VariantCost('mixconv35', 0, int(3e9), 0, 0, ap=0.4),
        VariantCost('mixconv357', 0, int(5e9), 0, 0, ap=0.5),
        VariantCost('mixconv357-exp', 0, int(4e9), 0, 0, ap=0.6),
    ]
    plot_costs(costs, 'mobilenetv2', 6, tmp_path / 'c.png')
    assert (tmp_path / 'c.png').read_bytes().startswith(b'\x89PNG')
    assert list(drawn) == ['multiply-adds, G', 'AP']  # latency was not measured
    assert drawn['multiply-adds, G'] == {
        'depthwise': [(3, 1), (5, 2)],
        'mixconv': [(3, 1), (5, 3), (7, 5)],
        'mixconv + exp': [(3, 1), (7, 4)],
    }
    assert drawn['AP']['mixconv'] == [(3, 0.2), (5, 0.4), (7, 0.5)]
    drawn.clear()
    costs[2] = costs[2]._replace(ap=None)
    plot_costs(costs, 'mobilenetv2', 6, tmp_path / 'c.png')
    assert list(drawn) == ['multiply-adds, G']  # not every variant is trained


def test_curves_over_layers(single_layers, drawn, tmp_path):
    plot_costs(single_layers, 'mobilenetv2', 5, tmp_path / 'c.png')
    (curves,) = drawn.values()
    assert list(curves) == ['depthwise9x9', 'mixconv3579']
    macs = {cost.variant: cost.macs for cost in single_layers}
    assert curves['mixconv3579'] == [(i, pytest.approx(macs[f'layer{i}-mixconv3579'] / 1e9)) for i in range(1, 18)]
