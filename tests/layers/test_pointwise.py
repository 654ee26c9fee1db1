import pytest
import torch
from helpers import needs_torch
from parity import onednn_off
from torch import nn
from torch.profiler import profile

from mixdet.layers import PointwiseConv2d


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pair(groups, bias):
    layer = PointwiseConv2d(12, 24, groups=groups, bias=bias)
    plain = nn.Conv2d(12, 24, 1, groups=groups, bias=bias)
    plain.load_state_dict(layer.state_dict())
    return layer, plain


@pytest.mark.parametrize('groups', [1, 3])
@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_is_a_convolution(one_thread, groups, bias, memory_format, dtype):
    layer, plain = (module.to(dtype) for module in pair(groups, bias))
    x = torch.randn(3, 12, 7, 5, dtype=dtype).to(memory_format=memory_format).requires_grad_()
    outputs = [module(x) for module in (layer, plain)]
    assert outputs[0].is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(*outputs)
    upstream = torch.randn_like(outputs[0])
    gradients = [
        torch.autograd.grad(out, [x, *module.parameters()], upstream) for out, module in zip(outputs, (layer, plain))
    ]
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_one_thread_uses_onednn_in_channels_last(one_thread):
    if not torch.backends.mkldnn.is_available():
        pytest.skip('PyTorch without oneDNN')
    layer, _ = pair(3, True)
    x = torch.randn(2, 12, 16, 16)
    for tensor, expected in ((x.to(memory_format=torch.channels_last), True), (x, False)):
        with profile() as run, torch.no_grad():
            layer(tensor)
        assert any(event.key == 'aten::mkldnn_convolution' for event in run.key_averages()) == expected


def test_leaves_the_choice_to_pytorch_elsewhere(one_thread):
    """In eager mode a dilation of 2 is declared for one thread and oneDNN only."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip('PyTorch without oneDNN')
    layer, _ = pair(1, False)
    x = torch.randn(1, 12, 42, 42).to(memory_format=torch.channels_last)

    def dilation(x):
        with profile(record_shapes=True) as run, torch.no_grad():
            layer(x)
        (inputs,) = (event.concrete_inputs for event in run.events() if event.name == 'aten::conv2d')
        return inputs[5]

    assert dilation(x) == [2, 2]
    assert dilation(x[..., :40, :42]) == [1, 1]  # 20,160 numbers: too small
    assert dilation(x.contiguous()) == dilation(torch.randn(2, 12, 1, 1)) == [1, 1]
    assert dilation(torch.randn(1, 12, 84, 42).to(memory_format=torch.channels_last)[:, :, ::2]) == [1, 1]
    assert dilation(x.expand(2, -1, -1, -1)[..., :3, :3].contiguous(memory_format=torch.channels_last)) == [2, 2]
    with onednn_off():
        assert dilation(x) == [1, 1]
    torch.set_num_threads(2)
    assert dilation(x) == [1, 1]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('groups', [1, 3])
def test_never_takes_the_loop_over_pixels(one_thread, groups, dtype):
    """One small image, and float64, are not oneDNN's whatever the dilation."""
    layer, plain = (module.to(dtype) for module in pair(groups, True))
    x = torch.randn(1, 12, 10, 10, dtype=dtype).to(memory_format=torch.channels_last)
    with profile() as run, torch.no_grad():
        out = layer(x)
    assert not any('dilated' in event.key for event in run.key_averages())
    torch.testing.assert_close(out, plain(x))


@needs_torch('2.4')
def test_graphs_hold_a_plain_convolution(one_thread):
    torch._dynamo.reset()
    layer, _ = pair(1, False)
    x = torch.randn(2, 12, 42, 42).to(memory_format=torch.channels_last)
    graphs = [torch.export.export(layer, (x,)).graph]
    torch.compile(layer, backend=lambda module, inputs: graphs.append(module.graph) or module.forward)(x)
    for graph in graphs:
        node = next(node for node in graph.nodes if 'conv2d' in str(node.target))
        assert 2 not in node.args and [2, 2] not in node.args and node.kwargs.get('dilation', 1) == 1
    assert 'Constant[value=2]' not in str(torch.jit.trace(layer, x).graph)


def test_other_kernels_are_refused():
    for kernel_size, stride in ((3, 1), (1, 2)):
        with pytest.raises(ValueError, match=f'kernel_size={kernel_size}, stride={stride}: PointwiseConv2d is for 1x1'):
            PointwiseConv2d(4, 4, kernel_size, stride)
