"""Every implementation of the mixed convolution against the one in plain PyTorch."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from helpers import needs_torch, tiny_detector
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import CPU_DTYPES, arrange, assert_autocasts, assert_close, pair, require_native, run
from strategies import mixconv_arguments

from mixdet.compat.stack import is_at_least
from mixdet.layers import MixConv2d, implementations, set_mixconv_impl

pytestmark = pytest.mark.slow

CPU_IMPLS = ('padded', 'native')
every_impl = pytest.mark.parametrize('impl', CPU_IMPLS)


@pytest.fixture(autouse=True, scope='module')
def operator():
    require_native()


@every_impl
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    mixconv_arguments(),
    st.sampled_from(CPU_DTYPES),
    st.sampled_from(['contiguous', 'channels_last', 'strided']),
    st.integers(1, 3),
    st.integers(5, 14),
    st.integers(5, 14),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_agrees_with_split(impl, arguments, dtype, layout, batch, height, width, wide, seed):
    torch.manual_seed(seed)
    channels, multiplier = arguments['in_channels'], arguments['out_channels'] // arguments['in_channels']
    if wide:  # more channels than a block of the operator
        channels = 72
        arguments = dict(arguments, in_channels=channels, out_channels=channels * multiplier, split='equal')
    layer, reference = pair(impl, **arguments, dtype=dtype)
    values = torch.randn(batch, channels, height, width).to(dtype)
    # half precision is compared with the same numbers in double, because PyTorch itself rounds sums of groups
    exact = copy.deepcopy(reference).double()
    x, y = arrange(values, layout).requires_grad_(), values.double().requires_grad_()
    chosen, actual = run(layer, x)
    assert chosen == impl and actual.dtype == dtype
    expected = exact(y)
    assert_close(actual, expected, dtype)
    upstream = torch.randn(expected.shape).to(dtype)
    gradients = torch.autograd.grad(actual, [x, *layer.parameters()], arrange(upstream, layout))
    wanted = torch.autograd.grad(expected, [y, *exact.parameters()], upstream.double())
    for a, b in zip(gradients, wanted):
        assert a.shape == b.shape
        # PyTorch rounds every sum of a convolution's gradients in half precision
        assert_close(a, b, dtype) if impl == 'native' or dtype.itemsize >= 4 else assert_close(a, b, torch.bfloat16)


@every_impl
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('padding', ['symmetric', 'same'])
def test_gradients_of_first_and_second_order(impl, stride, padding):
    torch.manual_seed(0)
    layer, reference = pair(impl, 4, 4, (3, 5), stride=stride, padding=padding, bias=True)
    x = torch.randn(2, 4, 6, 5, dtype=torch.double, requires_grad=True)
    parameters = list(layer.parameters())

    def function(x, *parameters):
        names = [name for name, _ in layer.named_parameters()]
        return torch.func.functional_call(layer, dict(zip(names, parameters)), x)

    assert implementations.choose(layer, x) == impl
    assert torch.autograd.gradcheck(function, (x, *parameters))
    assert torch.autograd.gradgradcheck(function, (x, *parameters))

    def penalty(layer):
        (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), [x, *layer.parameters()])

    for a, b in zip(penalty(layer), penalty(reference)):
        assert_close(a, b, torch.float64)


@every_impl
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(impl, dtype):
    if dtype == torch.float16 and not is_at_least(torch.__version__, '2.4'):
        pytest.skip('PyTorch before 2.4 has no float16 autocast on CPUs')
    torch.manual_seed(0)
    layer, reference = pair(impl, 8, 8, (3, 5), dtype=torch.float32)
    assert_autocasts(layer, reference, torch.randn(2, 8, 9, 9), dtype)


@needs_torch('2.4')
@pytest.mark.parametrize(('impl', 'dynamic'), [('padded', False), ('native', False), ('native', True)])
def test_compiles_into_one_graph(impl, dynamic):
    torch._dynamo.reset()
    layer, reference = pair(impl, 6, 12, (3, 5, 7), stride=2, padding='same', bias=True)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager', dynamic=dynamic)
    for size in ((11, 8), (14, 9)):
        x = torch.randn(2, 6, *size, dtype=torch.double, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        actual, expected = compiled(x), reference(y)
        assert_close(actual, expected, torch.float64)
        actual.square().sum().backward()
        expected.square().sum().backward()
        assert_close(x.grad, y.grad, torch.float64)


@needs_torch('2.4')
@pytest.mark.parametrize('impl', implementations.IMPLS)
def test_exports_hold_plain_operators(impl):
    layer, reference = pair(impl, 6, 6, (3, 5), dtype=torch.float32)
    x = torch.randn(1, 6, 9, 9)
    program = torch.export.export(layer.eval(), (x,))
    assert 'mixdet' not in str(program.graph)
    assert_close(program.module()(x), reference(x), torch.float32)
    traced = torch.jit.trace(layer, x)
    assert 'mixdet::' not in str(traced.graph)
    assert_close(traced(x), reference(x), torch.float32)


@pytest.mark.parametrize('impl', implementations.IMPLS)
def test_copies_pickles_and_shares_checkpoints(impl):
    layer, reference = pair(impl, 6, 6, (3, 5), bias=True)
    x = torch.randn(1, 6, 7, 7, dtype=torch.double)
    with torch.no_grad():
        expected = layer(x)
        for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert clone.impl == impl and torch.equal(clone(x), expected)
    assert list(layer.state_dict()) == list(reference.state_dict()) == [
        'convs.0.weight', 'convs.0.bias', 'convs.1.weight', 'convs.1.bias'
    ]  # fmt: skip


@every_impl
def test_changed_weights_are_seen(impl):
    layer, reference = pair(impl, 6, 6, (3, 5))
    x = torch.randn(1, 6, 7, 7, dtype=torch.double)
    with torch.no_grad():
        before = layer.eval()(x)
        # as optimizers write, as load_state_dict writes, and as EMA hooks write, past the version counter
        for change in (
            lambda weight: weight.add_(1.0),
            lambda weight: weight.copy_(weight * 2),
            lambda weight: weight.data.mul_(3.0),
        ):
            change(layer.convs[0].weight)
            change(reference.convs[0].weight)
            after = layer(x)
            assert not torch.equal(after, before)
            assert_close(after, reference(x), torch.float64)
            before = after


@every_impl
def test_frozen_parameters_get_no_gradient(impl):
    layer, _ = pair(impl, 6, 6, (3, 5))
    layer.convs[0].weight.requires_grad_(False)
    layer(torch.randn(1, 6, 7, 7, dtype=torch.double)).sum().backward()
    assert layer.convs[0].weight.grad is None and layer.convs[1].weight.grad.any()


def test_hooks_and_replacements_of_the_groups_are_called():
    layer, reference = pair('native', 6, 6, (3, 5))
    x = torch.randn(1, 6, 7, 7, dtype=torch.double)
    seen = []
    handle = layer.convs[1].register_forward_hook(lambda *args: seen.append(1))
    assert torch.equal(layer(x), reference(x)) and seen == [1]
    handle.remove()
    torch.nn.utils.parametrizations.weight_norm(layer.convs[0])
    assert implementations.choose(layer, x) == 'split'


@pytest.mark.parametrize('impl', ['native', 'padded'])
def test_pruning_hooks_set_the_weight_before_every_call(impl):
    layer, _ = pair(impl, 6, 6, (3, 5))
    layer.eval()
    x = torch.randn(1, 6, 7, 7, dtype=torch.double)
    torch.nn.utils.prune.l1_unstructured(layer.convs[0], 'weight', 0.5)
    with torch.no_grad():
        layer(x)
        layer.convs[0].weight_mask.zero_()
        assert layer(x)[:, :3].abs().max() == 0
        layer.convs[0].weight_mask.fill_(1)
        layer.convs[0].weight_orig.fill_(0.25)
        expected = torch.nn.functional.conv2d(x[:, :3], torch.full((3, 1, 3, 3), 0.25).double(), padding=1, groups=3)
        assert_close(layer(x)[:, :3], expected, torch.float64)


@every_impl
@pytest.mark.parametrize('kind', ['full_backward_hook', 'full_backward_pre_hook', 'forward_pre_hook', 'forward'])
def test_every_kind_of_hook_is_called(impl, kind):
    layer, _ = pair(impl, 6, 6, (3, 5))
    x = torch.randn(1, 6, 7, 7, dtype=torch.double, requires_grad=True)
    seen = []
    conv = layer.convs[1]
    if kind == 'forward':  # as tools replace it on the instance

        def forward(value, original=conv.forward):
            seen.append(1)
            return original(value)

        conv.forward = forward
    else:
        getattr(conv, f'register_{kind}')(lambda *args: seen.append(1))
    layer(x).sum().backward()
    assert seen == [1]


@every_impl
def test_hooks_on_all_modules_see_the_groups(impl):
    layer, _ = pair(impl, 6, 6, (3, 5))
    seen = []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    try:
        layer(torch.randn(1, 6, 7, 7, dtype=torch.double))
    finally:
        handle.remove()
    assert seen == ['Conv2d', 'Conv2d', 'MixConv2d']


@every_impl
def test_pytorchs_flop_counter(impl):
    from torch.utils.flop_counter import FlopCounterMode

    layer, _ = pair(impl, 6, 6, (3, 5), stride=2)
    x = torch.randn(2, 6, 9, 7, dtype=torch.double)
    with FlopCounterMode(display=False) as counter:
        assert layer(x).shape == (2, 6, 5, 4)
    # twice the multiply-adds of 2 images, 3 channels a group, 5 x 4 px
    assert counter.get_total_flops() == 2 * 2 * 3 * (9 + 25) * 5 * 4


def test_torch_func_transforms():
    layer, reference = pair('auto', 6, 6, (3, 5))
    x = torch.randn(3, 6, 7, 7, dtype=torch.double)
    gradient = torch.func.grad(lambda x: layer(x).square().sum())
    assert torch.equal(gradient(x), torch.func.grad(lambda x: reference(x).square().sum())(x))


def test_data_parallel(tmp_path):
    layer, reference = pair('native', 6, 6, (3, 5))
    x = torch.randn(2, 6, 7, 7, dtype=torch.double)
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        torch.nn.parallel.DistributedDataParallel(layer)(x).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    reference(x).square().sum().backward()
    for a, b in zip(layer.parameters(), reference.parameters()):
        assert_close(a.grad, b.grad, torch.float64)


def test_auto_leaves_the_vanilla_3x3_to_pytorch_where_its_gradient_is_faster(monkeypatch):
    monkeypatch.setattr(implementations, 'SLOW_GRADIENTS', False)
    x = torch.randn(1, 8, 9, 9)
    channels_last = x.to(memory_format=torch.channels_last)
    layer = MixConv2d(8, 8, 3)
    assert implementations.choose(layer, x) == 'split' and implementations.choose(layer, channels_last) == 'native'
    assert implementations.choose(MixConv2d(8, 8, 3, stride=2), channels_last) == 'split'
    assert (
        implementations.choose(MixConv2d(8, 8, (3, 5)), x) == implementations.choose(MixConv2d(8, 8, 5), x) == 'native'
    )
    with torch.no_grad():
        assert implementations.choose(layer, x) == 'native'


def test_a_whole_detector_with_every_implementation():
    model = tiny_detector(kernel_sizes=(3, 5, 7)).eval()
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        expected = set_mixconv_impl(model, 'split')(x, mode='tensor')
        for impl in (*CPU_IMPLS, 'auto'):
            actual = set_mixconv_impl(model, impl)(x, mode='tensor')
            for a, b in zip((*actual[0], *actual[1]), (*expected[0], *expected[1])):
                assert_close(a, b, torch.float32)


def test_unknown_implementations_are_refused():
    with pytest.raises(ValueError, match="impl='fast': must be one of"):
        MixConv2d(4, 4, 3, impl='fast')
    with pytest.raises(ValueError, match="impl='fast': must be one of"):
        set_mixconv_impl(torch.nn.Sequential(MixConv2d(4, 4, 3)), 'fast')


def test_padding_of_one_group_is_left_alone():
    layer = MixConv2d(4, 4, 5, padding=1, impl='padded')
    x = torch.randn(1, 4, 9, 9)
    assert torch.equal(layer(x), F.conv2d(x, layer.convs[0].weight, padding=1, groups=4))


@pytest.mark.parametrize('impl', ['split', 'padded'])
def test_where_gradients_are_slow_in_channels_last_they_are_computed_in_nchw(monkeypatch, impl):
    layer, reference = pair('split', 6, 6, (3, 5), stride=2)
    layer.impl = impl
    layer.to(memory_format=torch.channels_last)
    x = torch.randn(2, 6, 9, 8, dtype=torch.double).to(memory_format=torch.channels_last).requires_grad_()
    seen = []

    def conv2d(x, weight, *args, conv2d=F.conv2d):
        seen.append((x.is_contiguous(), weight.stride() == torch.empty(weight.shape).stride()))
        return conv2d(x, weight, *args)

    monkeypatch.setattr(implementations, 'SLOW_GRADIENTS', True)
    monkeypatch.setattr(F, 'conv2d', conv2d)
    out = layer(x)
    assert out.is_contiguous(memory_format=torch.channels_last) and seen
    assert all(weights for _, weights in seen) and (impl == 'split' or all(input for input, _ in seen))
    assert_close(out, reference(x), torch.float64)
    assert torch.autograd.gradcheck(layer, x)
