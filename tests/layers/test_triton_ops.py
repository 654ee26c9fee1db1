"""The Triton operator against plain PyTorch; in Triton's interpreter where there is no GPU (see conftest.py)."""

import copy
import importlib.util
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from parity import (
    OPTIONS,
    TOLERANCE,
    arrange,
    assert_autocasts,
    assert_close,
    assert_refused,
    operator_weights,
    pair,
    run,
    wrong_arguments,
)
from strategies import mixconv_arguments

from mixdet import layers
from mixdet.compat.stack import is_at_least
from mixdet.layers import MixConv2d, implementations, set_mixconv_impl, triton_ops

pytestmark = pytest.mark.slow

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
HAS_TRITON = importlib.util.find_spec('triton') is not None and is_at_least(torch.__version__, '2.6')
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason='needs Triton and PyTorch 2.6')


def tensor(*shape, **kwargs):
    return torch.randn(*shape, device=DEVICE, **kwargs)


def weights(**kwargs):
    return operator_weights(DEVICE, **kwargs)


@pytest.fixture
def operator():
    if not HAS_TRITON:
        pytest.skip('needs Triton and PyTorch 2.6')
    assert triton_ops.available(DEVICE)


def compare(layer, x, layout):
    """Values and gradients of ``layer`` against those of 'split' for the same numbers in float64."""
    exact = set_mixconv_impl(copy.deepcopy(layer).double(), 'split')
    y = x.double().requires_grad_()
    x = arrange(x, layout).requires_grad_()
    chosen, actual = run(layer, x)
    assert chosen == 'triton' and actual.dtype == x.dtype
    expected = exact(y)
    assert_close(actual, expected, x.dtype)
    upstream = torch.randn_like(expected).to(x.dtype)
    gradients = torch.autograd.grad(actual, [x, *layer.parameters()], arrange(upstream, layout))
    wanted = torch.autograd.grad(expected, [y, *exact.parameters()], upstream.double())
    for a, b in zip(gradients, wanted):
        assert a.shape == b.shape
        assert_close(a, b, x.dtype)


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(
    mixconv_arguments(sizes=(1, 3, 5)),  # the interpreter takes milliseconds for each tap; larger kernels: below
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from(['contiguous', 'channels_last', 'strided']),
    st.integers(1, 2),
    st.integers(5, 8),
    st.integers(5, 8),
    st.integers(0, 2**16),
)
@example(dict(in_channels=4, out_channels=8, kernel_size=[(9, 3), 7], stride=2), torch.float32, 'strided', 1, 6, 5, 0)
@example(
    dict(in_channels=2, out_channels=2, kernel_size=9, stride=3, padding='same'),
    torch.float64,
    'channels_last',
    1,
    7,
    9,
    0,
)
@needs_triton
def test_agrees_with_split(arguments, dtype, layout, batch, height, width, seed):
    torch.manual_seed(seed)
    layer, _ = pair('triton', **arguments, dtype=dtype, device=DEVICE)
    compare(layer, tensor(batch, arguments['in_channels'], height, width).to(dtype), layout)


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_many_programs_share_the_work(operator, monkeypatch, layout):
    for name, value in dict(BLOCK=32, GRADIENT_BLOCK=128, GRADIENT_PROGRAMS=3).items():
        monkeypatch.setattr(triton_ops, name, value)
    layer, _ = pair('triton', 5, 5, (3, 5), stride=(1, 2), padding='same', device=DEVICE)
    compare(layer, tensor(2, 5, 7, 9, dtype=torch.double), layout)


@pytest.mark.parametrize('padding', ['symmetric', 'same'])
def test_gradients_of_second_order(operator, padding):
    torch.manual_seed(0)
    layer, reference = pair('triton', 3, 3, (3, 5), stride=2, padding=padding, bias=True, device=DEVICE)
    x = tensor(2, 3, 5, 4, dtype=torch.double, requires_grad=True)
    assert implementations.choose(layer, x) == 'triton'

    def penalty(layer):
        inputs = [x, *layer.parameters()]
        gradients = torch.autograd.grad(layer(x).pow(3).sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), inputs)

    for a, b in zip(penalty(layer), penalty(reference)):
        assert_close(a, b, torch.float64)


@pytest.mark.parametrize(('same', 'channels_last'), [(False, False), (True, True)])
def test_operators_keep_pytorchs_rules(operator, same, channels_last):
    kwargs = dict(dtype=torch.double, requires_grad=True)
    x = tensor(2, 5, 6, 5, **kwargs)
    if channels_last:
        x = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    ops = torch.ops.mixdet
    arguments = (x, weights(**kwargs), tensor(5, **kwargs), *OPTIONS, same, 'none')
    torch.library.opcheck(ops.mixconv2d_triton.default, arguments)
    grad = tensor(2, 5, 3, 5, **kwargs)
    torch.library.opcheck(ops.mixconv2d_triton_input_grad.default, (grad, weights(**kwargs), [6, 5], *OPTIONS, same))
    kernel = [3, 3, 3, 2, 5, 5]
    torch.library.opcheck(ops.mixconv2d_triton_weight_grad.default, (grad, x, kernel, *OPTIONS, same))


@pytest.mark.parametrize('activation', ['relu', 'relu6'])
@pytest.mark.parametrize('channels_last', [False, True])
def test_bias_and_activation_inside_the_operator(operator, activation, channels_last):
    x, bias = 3 * tensor(1, 5, 8, 7), tensor(5)
    x[0, 0, 4, 4] = torch.nan  # PyTorch's activations pass it on
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    ops, kernels = torch.ops.mixdet, weights()
    plain = ops.mixconv2d_triton(x, kernels, None, *OPTIONS, False, 'none') + bias.view(-1, 1, 1)
    fused = ops.mixconv2d_triton(x, kernels, bias, *OPTIONS, False, activation)
    assert fused.is_contiguous(memory_format=torch.channels_last) == channels_last and fused.isnan().any()
    torch.testing.assert_close(fused, getattr(torch.nn.functional, activation)(plain), equal_nan=True)
    with pytest.raises(RuntimeError, match='has no gradient'):
        ops.mixconv2d_triton(x.requires_grad_(), kernels, bias, *OPTIONS, False, activation)


def test_folded_activations(operator):
    layer, reference = pair('triton', 4, 4, (3, 5), bias=True, device=DEVICE)
    layer.activation = reference.activation = 'relu6'
    x = 4 * tensor(1, 4, 6, 6, dtype=torch.double)
    with torch.no_grad():
        assert_close(layer(x), reference(x), torch.float64)
    for a, b in zip(*(torch.autograd.grad(m(x).sum(), list(m.parameters())) for m in (layer, reference))):
        assert_close(a, b, torch.float64)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(operator, dtype):
    torch.manual_seed(0)
    layer, reference = pair('triton', 4, 4, (3, 5), dtype=torch.float32, bias=True, device=DEVICE)
    assert_autocasts(layer, reference, tensor(2, 4, 7, 7), dtype)


@pytest.mark.parametrize('dynamic', [False, True])
def test_compiles_into_one_graph(operator, dynamic):
    torch._dynamo.reset()
    layer, reference = pair('triton', 4, 8, (3, 5), stride=2, padding='same', bias=True, device=DEVICE)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager', dynamic=dynamic)
    for size in ((7, 5), (8, 6)):
        x = tensor(2, 4, *size, dtype=torch.double, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        actual, expected = compiled(x), reference(y)
        assert_close(actual, expected, torch.float64)
        actual.square().sum().backward()
        expected.square().sum().backward()
        assert_close(x.grad, y.grad, torch.float64)


def test_exports_hold_plain_operators(operator):
    layer, reference = pair('triton', 4, 4, (3, 5), device=DEVICE)
    x = tensor(1, 4, 6, 6, dtype=torch.double)
    program = torch.export.export(layer.eval(), (x,))
    assert 'mixdet' not in str(program.graph)
    assert_close(program.module()(x), reference(x), torch.float64)
    assert 'mixdet::' not in str(torch.jit.trace(layer, x).graph)


def test_copies_pickles_hooks_and_torch_func(operator):
    layer, reference = pair('triton', 4, 4, (3, 5), device=DEVICE)
    x = tensor(1, 4, 6, 6, dtype=torch.double)
    for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert implementations.choose(clone, x) == 'triton' and torch.equal(clone(x), layer(x))
    gradient = torch.func.grad(lambda x: layer(x).square().sum())(x)
    assert torch.equal(gradient, torch.func.grad(lambda x: reference(x).square().sum())(x))
    layer.convs[1].register_forward_hook(lambda *args: None)
    assert implementations.choose(layer, x) == 'split'


def test_data_parallel(operator, tmp_path):
    layer, reference = pair('triton', 4, 4, (3, 5), device=DEVICE)
    x = tensor(2, 4, 6, 6, dtype=torch.double)
    backend = 'nccl' if DEVICE == 'cuda' else 'gloo'
    torch.distributed.init_process_group(backend, init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        torch.nn.parallel.DistributedDataParallel(layer)(x).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    reference(x).square().sum().backward()
    for a, b in zip(layer.parameters(), reference.parameters()):
        assert_close(a.grad, b.grad, torch.float64)


def test_empty_batches_and_frozen_parameters(operator):
    layer, _ = pair('triton', 4, 4, (3, 5), device=DEVICE)
    layer.convs[0].weight.requires_grad_(False)
    x = tensor(0, 4, 6, 6, dtype=torch.double, requires_grad=True)
    out = layer(x)
    assert out.shape == (0, 4, 6, 6)
    out.sum().backward()
    assert x.grad.shape == x.shape
    assert layer.convs[0].weight.grad is None and not layer.convs[1].weight.grad.any()


@wrong_arguments
def test_wrong_arguments_are_refused(operator, change, message):
    assert_refused(torch.ops.mixdet.mixconv2d_triton, change, message, DEVICE)


def test_wrong_gradients_are_refused(operator):
    x, grad = tensor(2, 5, 8, 7), tensor(2, 5, 8, 7)
    with pytest.raises(ValueError, match=r'gradient has the shape \(2, 5, 8, 7\), the output \(2, 5, 4, 7\)'):
        torch.ops.mixdet.mixconv2d_triton_input_grad(grad, weights(), [8, 7], *OPTIONS, False)
    with pytest.raises(ValueError, match='gradient has the shape'):
        torch.ops.mixdet.mixconv2d_triton_weight_grad(grad, x, [3, 3, 3, 2, 5, 5], *OPTIONS, False)


@pytest.mark.parametrize('shape', [(1, 4, 2**15, 2**15), (2**31, 1, 1, 1)])
def test_sizes_beyond_32_bits_are_refused(shape):
    x = torch.empty(shape, device='meta')
    with pytest.raises(ValueError, match='2\\^31'):
        triton_ops._weight_grad(x, x, [shape[1], 1, 1], [1, 1], [0, 0], [1, 1], False)


def test_the_last_address_of_32_bits_is_allowed():
    for stride in ((0, 2**31 - 1, 1, 1), (0, 1, 2**31 - 1, 1), (0, 1, 1, 2**31 - 1)):
        shape = [1, *(2 if step > 1 else 1 for step in stride[1:])]
        triton_ops._check_alike(torch.empty_strided(shape, stride, device='meta'))
        beyond = torch.empty_strided(shape, [step + (step > 1) for step in stride], device='meta')
        with pytest.raises(ValueError, match='2\\^31'):
            triton_ops._check_alike(beyond)


@needs_triton
@pytest.mark.parametrize('dtype', ['fp32', 'bf16'])
def test_kernels_compile_for_a_gpu(tmp_path, dtype):
    """To machine code, with the compiler that comes with Triton: no GPU is needed."""
    script = Path(__file__).with_name('compile_triton.py')
    env = {**os.environ, 'TRITON_INTERPRET': '0', 'TRITON_CACHE_DIR': str(tmp_path)}
    done = subprocess.run([sys.executable, script, dtype], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    # neighbouring channels are read by one instruction in channels_last
    assert all(line.endswith('vector loads') for line in lines if 'channels_last' in line), done.stdout


def test_without_triton_one_line_says_so_and_split_runs(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'triton', None)
    monkeypatch.delitem(sys.modules, 'mixdet.layers.triton_kernels', raising=False)
    monkeypatch.delattr(layers, 'triton_kernels', raising=False)
    with caplog.at_level(logging.WARNING, logger=triton_ops.__name__):
        assert triton_ops.load.__wrapped__() is False
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1 and 'pip install triton' in messages[0] and '\n' not in messages[0]
    monkeypatch.setattr(triton_ops, 'load', lambda: False)
    layer, reference = pair('triton', 4, 4, (3, 5), device=DEVICE)
    x = tensor(1, 4, 6, 6, dtype=torch.double)
    assert implementations.choose(layer, x) == 'split' and torch.equal(layer(x), reference(x))


def test_cpu_tensors_need_the_interpreter(monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    assert not triton_ops.available('cpu') and not triton_ops.available('meta')
    layer = MixConv2d(4, 4, (3, 5), impl='triton')
    assert implementations.choose(layer, torch.randn(1, 4, 6, 6)) == 'split'


@pytest.mark.skipif(DEVICE == 'cpu', reason='no CUDA')
def test_auto_is_split_on_cuda():
    assert implementations.choose(MixConv2d(4, 4, (3, 5)), tensor(1, 4, 6, 6)) == 'split'
