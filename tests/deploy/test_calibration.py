import numpy as np
import pytest

from mixdet.deploy.calibration import BINS, LEVELS, best_ranges


def rounding_error(values, low, high, function=lambda x: x):
    """Mean squared error of ``function`` behind 8 bits of this range."""
    step = (high - low) / LEVELS
    zero = round(-low / step)
    rounded = (np.clip(np.round(values / step) + zero, 0, LEVELS) - zero) * step
    return float(((function(rounded) - function(values)) ** 2).mean())


def swish(x):
    return x / (1 + np.exp(-x))


@pytest.fixture
def network(tmp_path):
    """The sum of an image and 1, a ReLU of it, x * sigmoid(x), and a constant 0."""
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        make.make_node('Add', ['image', 'one'], ['sum']),
        make.make_node('Relu', ['sum'], ['relu']),
        make.make_node('Sigmoid', ['sum'], ['gate']),
        make.make_node('Mul', ['sum', 'gate'], ['out']),
        make.make_node('Sub', ['sum', 'sum'], ['nothing']),
    ]
    constants = [make.make_tensor('one', kind, [1], [1.0])]
    info = [make.make_tensor_value_info(name, kind, [1, 'n']) for name in ('image', 'out')]
    graph = make.make_graph(nodes, 'network', info[:1], info[1:], constants)
    path = tmp_path / 'network.onnx'
    model = make.make_model(graph, opset_imports=[make.make_opsetid('', 18)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def test_ranges_minimise_the_error(network):
    rng = np.random.default_rng(0)
    images = [rng.normal(0, 4, (1, 40000)).astype(np.float32) for _ in range(3)]
    images[1][0, :2] = 25, -50  # outliers
    calls = []

    def inputs():
        calls.append(1)
        return (dict(image=image) for image in images)

    ranges = best_ranges(network, ['sum', 'relu', 'nothing'], set(), inputs)
    behind = best_ranges(network, ['sum'], {'sum'}, inputs)['sum']
    assert len(calls) == 4 and set(ranges) == {'sum', 'relu'}
    values = np.concatenate(images, 1) + 1
    low, high = ranges['sum']
    assert low < 0 < high and ranges['relu'][0] == 0
    assert rounding_error(values, low, high) < 0.8 * rounding_error(values, -49, 26)
    for other in ((low * 0.8, high), (low, high * 0.8), (low * 1.2, high), (low, high * 1.2)):
        assert rounding_error(values, low, high) <= 1.01 * rounding_error(values, *other)
    assert rounding_error(values, *behind, swish) < 0.5 * rounding_error(values, low, high, swish)
    assert behind[0] > low and BINS > LEVELS


def test_a_tensor_within_256_levels_keeps_its_range(network):
    image = np.linspace(-1, 254, 256, dtype=np.float32)[None]
    assert best_ranges(network, ['relu'], set(), lambda: [dict(image=image)]) == {'relu': (0.0, 255.0)}


def test_images_on_which_the_network_runs_away_do_not_count(network):
    """One of twenty, with values 60 times as large all over the image."""
    rng = np.random.default_rng(0)
    images = [rng.normal(0, 1, (1, 5000)).astype(np.float32) for _ in range(20)]
    usual = best_ranges(network, ['sum', 'relu'], set(), lambda: [dict(image=image) for image in images[1:]])
    images[0] *= 60
    images[7] *= np.float32('inf')
    found = best_ranges(network, ['sum', 'relu'], set(), lambda: [dict(image=image) for image in images])
    for name, (low, high) in found.items():
        assert low == pytest.approx(usual[name][0], rel=0.1) and high == pytest.approx(usual[name][1], rel=0.1)
