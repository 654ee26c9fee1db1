"""Comparing the implementations of the mixed convolution with one another."""

import contextlib
import copy
import os

import pytest
import torch

from mixdet.compat.stack import is_at_least
from mixdet.layers import MixConv2d, implementations, native, set_mixconv_impl

TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
# PyTorch before 2.2 has no convolution of float16 on CPUs
CPU_DTYPES = [dtype for dtype in TOLERANCE if dtype != torch.float16 or is_at_least(torch.__version__, '2.2')]
OPTIONS = ([2, 1], [1, 1, 2, 2], [1, 1, 1, 1])  # stride, padding and dilation for operator_weights()

# arguments that an operator must refuse, and its message
wrong_arguments = pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(input=torch.randn(2, 6, 8, 7)), 'has 6 channels, the weights 5'),
        (dict(input=torch.randn(5, 8, 7)), r'\(N, C, H, W\)'),
        (dict(input=torch.randn(2, 5, 8, 7).double()), 'tensors of Double|one type and device, got torch.float32'),
        (dict(input=torch.randn(2, 5, 1, 1)[:, :, :0]), 'smaller than a kernel'),
        (dict(bias=torch.randn(4)), 'one value for each channel'),
        (dict(stride=[0, 1]), 'stride must be'),
        (dict(padding=[1, 1]), 'padding and dilation must have'),
        (dict(dilation=[1, 1, 0, 1]), 'dilation must be positive'),
        (dict(padding=[1, 1, 1, 1]), 'outputs of different sizes'),
        (dict(activation='tanh'), "activation 'tanh'"),
        (dict(weight=[torch.randn(5, 2, 3, 3)]), 'weights must have the shape'),
    ],
)


def require_native():
    """Skip the test where there is no C++ compiler; where there is one the operator must work."""
    if native.load():
        return
    if os.environ.get(native.SWITCH) == '0':
        pytest.skip(f'{native.SWITCH}=0')
    try:
        command = native.compiler()
    except native.BuildError as error:
        pytest.skip(str(error))
    pytest.fail(f'{command[0]} is here, but the operator is not available; the log says why')


def operator_weights(device='cpu', **kwargs):
    """Kernels of 3 and 2 channels."""
    return [torch.randn(3, 1, 3, 3, device=device, **kwargs), torch.randn(2, 1, 5, 5, device=device, **kwargs)]


def assert_refused(operator, change, message, device='cpu'):
    arguments = dict(
        input=torch.randn(2, 5, 8, 7), weight=operator_weights(), bias=None, stride=OPTIONS[0], padding=OPTIONS[1],
        dilation=OPTIONS[2], same=False, activation='none',
    )  # fmt: skip
    arguments.update(change)
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor):
            arguments[name] = value.to(device)
    arguments['weight'] = [weight.to(device) for weight in arguments['weight']]
    with torch.no_grad(), pytest.raises((ValueError, TypeError, RuntimeError), match=message):
        operator(**arguments)


def assert_autocasts(layer, reference, x, dtype):
    """Under autocast ``layer`` computes in ``dtype``, and its parameters get gradients in their own type."""
    expected = reference(x)
    with torch.autocast(x.device.type, dtype=dtype):
        actual = layer(x)
    assert actual.dtype == dtype
    assert_close(actual, expected, torch.bfloat16)
    actual.float().sum().backward()
    expected.sum().backward()
    for a, b in zip(layer.parameters(), reference.parameters()):
        assert a.grad.dtype == torch.float32
        assert_close(a.grad, b.grad, torch.bfloat16)


def pair(impl, *args, dtype=torch.float64, device='cpu', **kwargs):
    """A layer with the implementation ``impl``, and the same layer with 'split'."""
    layer = MixConv2d(*args, impl=impl, **kwargs).to(device, dtype)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer, set_mixconv_impl(copy.deepcopy(layer), 'split')


def run(layer, x):
    """The implementation that ``layer`` chooses, and its output."""
    return implementations.choose(layer, x), layer(x)


def assert_close(actual, expected, dtype):
    # relative to the largest value, because the error of a sum depends on its largest terms
    scale = expected.detach().abs().max().clamp(min=1.0).double().item()
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=TOLERANCE[dtype] * scale)


@contextlib.contextmanager
def onednn_off():
    """As ``torch.backends.mkldnn.flags(enabled=False)``, which warns of other devices."""
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(True)


def arrange(x, layout):
    """``x`` in another memory layout."""
    if layout == 'channels_last':
        return x.to(memory_format=torch.channels_last)
    if layout == 'strided':  # every other channel and column of a larger tensor
        wide = torch.zeros(x.size(0), 2 * x.size(1), x.size(2), 2 * x.size(3), dtype=x.dtype, device=x.device)
        wide[:, ::2, :, ::2] = x
        return wide[:, ::2, :, ::2]
    return x
