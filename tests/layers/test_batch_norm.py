"""Batch-norm with its activation as one operator, against PyTorch's modules."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mixdet.layers import ConvNormAct, MixConvNormAct, native
from mixdet.layers.batch_norm import norm_act

pytestmark = pytest.mark.skipif(not native.available(), reason='no C++ compiler')
ACTIVATIONS = {'none': None, 'ReLU': nn.ReLU(), 'ReLU6': nn.ReLU6()}


def images(n=4, c=5, h=6, w=7, seed=0, mean=0.0, scale=1.0):
    x = torch.randn(n, c, h, w, generator=torch.Generator().manual_seed(seed)) * scale + mean
    return x.contiguous(memory_format=torch.channels_last)


def batch_norm(c=5, **options):
    norm = nn.BatchNorm2d(c, **options)
    if norm.affine:
        nn.init.uniform_(norm.weight, -2, 2, generator=torch.Generator().manual_seed(1))
        nn.init.uniform_(norm.bias, -2, 5, generator=torch.Generator().manual_seed(2))
    return norm


def plain(x, norm, act):
    return norm(x) if act is None else act(norm(x))


def values(run, x, norm, act, grad=None):
    """Result, gradients of input, weight and bias, and running statistics."""
    x = x.detach().clone().requires_grad_()
    out = run(x, norm, act)
    if grad is None:
        grad = torch.linspace(-1, 1, out.numel()).view_as(out)
    grads = torch.autograd.grad(out, (x, norm.weight, norm.bias), grad.to(out))
    return [out, *grads, norm.running_mean, norm.running_var]


def used(x, norm, act) -> bool:
    return '_BatchNormClamp' in type(norm_act(x.requires_grad_(), norm, act).grad_fn).__name__


@pytest.mark.parametrize('act', ACTIVATIONS.values(), ids=ACTIVATIONS)
@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 9), st.integers(2, 9)),
    spread=st.sampled_from([(0.0, 1.0), (0.0, 1e-3), (-3.0, 1.0), (300.0, 50.0), (50.0, 3.0)]),
)
def test_equals_batch_norm_in_float64(act, size, spread):
    x, norm = images(*size, mean=spread[0], scale=spread[1]), batch_norm(size[1], momentum=0.3, eps=1e-3)
    expected = values(plain, x.double(), copy.deepcopy(norm).double(), act)
    found = values(norm_act, x, copy.deepcopy(norm), act)
    theirs = values(plain, x, copy.deepcopy(norm), act)
    for ours, right, torchs in zip(found, expected, theirs):
        # where a value lies on an edge of the clamp by rounding, PyTorch's gradient is as far off
        allowed = 1e-4 * right.abs().max() + 2 * (torchs - right).abs().max() + 1e-6
        assert (ours - right).abs().max() <= allowed


def test_where_it_runs():
    norm, act = batch_norm(), nn.ReLU6()
    assert used(images(), norm, act) and used(images(), norm, None) and used(images(), norm, nn.ReLU())
    assert used(images(1), batch_norm(momentum=None), act)
    assert used(images(), batch_norm(track_running_stats=False), act)
    assert not used(images(), norm, nn.SiLU())
    assert not used(images().contiguous(), norm, act)
    assert not used(images(), batch_norm().eval(), act)
    assert not used(images(), batch_norm(affine=False), act)
    assert not used(images().double(), batch_norm().double(), act)
    with torch.autocast('cpu', torch.bfloat16):
        assert not used(images().bfloat16(), norm, act)


@pytest.mark.parametrize('hooked', ['norm', 'act'])
def test_hooks_are_called(hooked):
    parts = dict(norm=batch_norm(), act=nn.ReLU6())
    calls = []
    parts[hooked].register_forward_hook(lambda *args: calls.append(args))
    norm_act(images(), **parts)
    assert len(calls) == 1


@pytest.mark.parametrize('options', [dict(momentum=None), dict(momentum=0.25), dict(track_running_stats=False)])
def test_running_statistics_are_those_of_batch_norm(options):
    ours, theirs = batch_norm(**options), batch_norm(**options)
    for seed in range(3):
        norm_act(images(seed=seed, mean=seed), ours, None)
        theirs(images(seed=seed, mean=seed))
    for name, buffer in theirs.named_buffers():
        assert torch.allclose(ours.get_buffer(name), buffer, rtol=1e-5), name


def test_one_value_for_each_channel_is_refused_as_by_batch_norm():
    with pytest.raises(ValueError, match='Expected more than 1 value per channel'):
        norm_act(images(1, 5, 1, 1), batch_norm(), nn.ReLU6())


def test_gradients_of_gradients():
    def penalty(run):
        x, norm = images().requires_grad_(), batch_norm()
        (grad,) = torch.autograd.grad(run(x, norm, nn.ReLU6()).square().sum(), x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), (x, norm.weight, norm.bias))

    for ours, theirs in zip(penalty(norm_act), penalty(plain)):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max())


def test_frozen_parameters_and_inputs():
    x, norm = images(), batch_norm()
    norm.weight.requires_grad_(False)
    norm_act(x, norm, nn.ReLU6()).sum().backward()
    assert norm.weight.grad is None and norm.bias.grad is not None and x.grad is None
    x.requires_grad_()
    (grad,) = torch.autograd.grad(norm_act(x, norm, None).square().sum(), x, create_graph=True)
    assert grad.requires_grad


def test_gradients_may_come_in_any_layout():
    grad = torch.randn(4, 5, 6, 7, generator=torch.Generator().manual_seed(3))
    wide = torch.randn(4, 10, 6, 7)
    wide[:, ::2] = grad
    results = [
        values(norm_act, images(), batch_norm(), nn.ReLU6(), each)
        for each in (grad, grad.contiguous(memory_format=torch.channels_last), wide[:, ::2])
    ]
    for result in zip(*results):
        assert torch.equal(result[0], result[1]) and torch.equal(result[0], result[2])


def test_the_number_of_threads_does_not_change_a_bit():
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(values(norm_act, images(8, 24, 60, 60), batch_norm(24), nn.ReLU6()))
    finally:
        torch.set_num_threads(before)
    for first, *others in zip(*results):
        assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_what_is_not_finite_stays_visible(bad):
    x = images()
    x[1, 2, 3, 4] = bad
    out = norm_act(x, batch_norm(), nn.ReLU6())
    expected = plain(x, batch_norm(), nn.ReLU6())
    assert torch.equal(out.isnan(), expected.isnan()) and out[:, 2].isnan().any()


@pytest.mark.parametrize('block_type', [ConvNormAct, MixConvNormAct])
def test_blocks_use_it_in_training_alone(block_type):
    sizes = (6, 6, 3) if block_type is ConvNormAct else (6, (3, 5))
    block = block_type(*sizes, norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU6'))
    x = images(2, 6, 8, 8)
    trained = block(x)
    assert '_BatchNormClamp' in type(trained.grad_fn).__name__
    assert torch.allclose(trained, block.activate(block.norm(block.conv(x))), atol=1e-5)
    assert torch.allclose(block(x, activate=False), block.norm(block.conv(x)), atol=1e-5)
    assert torch.equal(block(x, norm=False, activate=False), block.conv(x))
    block.eval()
    assert torch.equal(block(x), block.activate(block.norm(block.conv(x))))


@pytest.mark.parametrize(
    'wrong', [dict(weight=torch.ones(4)), dict(x=torch.ones(2, 5, 3, 3)), dict(x=torch.ones(5, 5))]
)
def test_the_operator_refuses_what_it_cannot_compute(wrong):
    given_ = dict(x=images(), weight=torch.ones(5), bias=torch.zeros(5)) | wrong
    with pytest.raises(ValueError, match='batch_norm_clamp'):
        torch.ops.mixdet.batch_norm_clamp(*given_.values(), 1e-5, 0.0, 6.0)
