import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from parity import onednn_off
from torch import nn
from torch.profiler import profile

from mixdet.layers import PrepackedConv2d, prepacked

GEOMETRIES = [
    (8, 24, dict(kernel_size=1)),
    (12, 24, dict(kernel_size=1, groups=3)),
    (3, 16, dict(kernel_size=3, stride=2, padding=1)),
    (16, 16, dict(kernel_size=(3, 5), padding=(2, 4), dilation=2, groups=16)),
]


@pytest.fixture(autouse=True)
def onednn():
    if not prepacked._available():
        pytest.skip('PyTorch without oneDNN, or before 2.4')


def pair(in_channels=8, out_channels=16, activation=None, **geometry):
    """A layer, and the function that it should compute."""
    torch.manual_seed(0)
    conv = nn.Conv2d(in_channels, out_channels, **(geometry or dict(kernel_size=1))).requires_grad_(False)
    layer = copy.deepcopy(conv)
    PrepackedConv2d.take_over(layer)
    layer.activation = activation
    return layer, lambda x: getattr(F, activation)(conv(x)) if activation else conv(x)


def image(channels=8, size=(9, 11), batch=2, **kwargs):
    return torch.randn(batch, channels, *size, **kwargs).to(memory_format=torch.channels_last)


def through_onednn(layer, x):
    with profile() as run:
        out = layer(x)
    return out, any(event.key == 'mkldnn::_convolution_pointwise' for event in run.key_averages())


@pytest.mark.parametrize('activation', [None, 'relu', 'relu6', 'silu'])
@pytest.mark.parametrize(('in_channels', 'out_channels', 'geometry'), GEOMETRIES)
@pytest.mark.parametrize('bias', [False, True])
def test_is_a_convolution_and_its_activation(in_channels, out_channels, geometry, bias, activation):
    layer, reference = pair(in_channels, out_channels, activation, bias=bias, **geometry)
    for size, batch in (((9, 11), 2), ((14, 6), 1), ((9, 11), 3)):  # the weights are packed for the first
        x = 4 * image(in_channels, size, batch)
        out, fast = through_onednn(layer, x)
        assert fast and out.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(out, reference(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('x', [image().contiguous(), image(size=(1, 1)), image(batch=0), image()[0]])
def test_other_inputs_do_not_go_through_onednn(x):
    layer, reference = pair(activation='relu6')
    out, fast = through_onednn(layer, x)
    assert not fast
    torch.testing.assert_close(out, reference(x))


@pytest.mark.parametrize('wanted', ['input', 'weight'])
def test_gradients_flow(wanted):
    layer, reference = pair(activation='silu')
    x = image()
    source = (x if wanted == 'input' else layer.weight).requires_grad_()
    out, fast = through_onednn(layer, x)
    assert not fast
    if wanted == 'weight':
        reference = lambda x: F.silu(F.conv2d(x, layer.weight, layer.bias))  # noqa: E731
    torch.testing.assert_close(
        torch.autograd.grad(out.sum(), source), torch.autograd.grad(reference(x).sum(), source), rtol=1e-5, atol=1e-5
    )
    with torch.no_grad():
        assert through_onednn(layer, x)[1]


def test_onednn_can_be_switched_off():
    layer, reference = pair()
    x = image()
    with onednn_off():
        out, fast = through_onednn(layer, x)
    assert not fast
    torch.testing.assert_close(out, reference(x), rtol=1e-5, atol=1e-5)


def test_other_dtypes():
    layer, reference = pair(activation='relu')
    x = image()
    with torch.autocast('cpu', torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.float64
    torch.testing.assert_close(layer(x.double()).float(), reference(x), rtol=1e-5, atol=1e-5)


def write_in_place(layer, weight):
    layer.weight.copy_(weight)


def write_state(layer, weight):
    layer.load_state_dict(dict(layer.state_dict(), weight=weight))


def write_data(layer, weight):
    layer.weight.data = weight


@pytest.mark.parametrize('write', [write_in_place, write_state, write_data])
def test_follows_its_weights(write):
    layer, _ = pair()
    x = image()
    layer(x)
    weight = torch.randn_like(layer.weight)
    write(layer, weight)
    out, fast = through_onednn(layer, x)
    assert fast
    torch.testing.assert_close(out, F.conv2d(x, weight, layer.bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_hold_the_parameters_alone(copied):
    layer, reference = pair(activation='relu')
    x = image()
    layer(x)
    twin = copied(layer)
    assert '_packed' in vars(layer) and '_packed' not in vars(twin)
    assert list(twin.state_dict()) == ['weight', 'bias']
    torch.testing.assert_close(twin(x), reference(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('made_inside', [False, True])
def test_inference_mode(made_inside):
    with torch.inference_mode(made_inside):
        layer, _ = pair()
    with torch.inference_mode():
        x = image()
        for _ in range(2):
            out, fast = through_onednn(layer, x)
            assert fast != made_inside
            torch.testing.assert_close(out, F.conv2d(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)
            layer.weight.neg_()


def test_compiles_and_exports_as_plain_operators():
    torch._dynamo.reset()
    layer, reference = pair(activation='relu6')
    x = image()
    layer(x)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend='aot_eager')(x), reference(x))
    graph = torch.export.export(layer, (x,)).graph
    assert not any('mkldnn' in str(node.target) for node in graph.nodes)
    assert 'mkldnn' not in str(torch.jit.trace(layer, x).graph)
