"""Comparing the forms of the mixed convolution with one another."""

import copy

import torch

from mixdet.layers import MixConv2d, forms, set_mixconv_impl

TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def pair(impl, *args, dtype=torch.float64, device='cpu', **kwargs):
    """A layer in form ``impl`` and the same in form 'split'."""
    layer = MixConv2d(*args, impl=impl, **kwargs).to(device, dtype)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer, set_mixconv_impl(copy.deepcopy(layer), 'split')


def ran(layer, x):
    """What ``layer`` computes with, and its output."""
    return forms.choose(layer, x), layer(x)


def assert_close(actual, expected, dtype):
    # relative to the largest value: a sum of many terms is only as exact as the largest of them
    scale = expected.detach().abs().max().clamp(min=1.0).double().item()
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=TOLERANCE[dtype] * scale)


def arrange(x, layout):
    """``x`` in another memory layout."""
    if layout == 'channels_last':
        return x.to(memory_format=torch.channels_last)
    if layout == 'strided':  # every other channel and column of a larger tensor
        wide = torch.zeros(x.size(0), 2 * x.size(1), x.size(2), 2 * x.size(3), dtype=x.dtype, device=x.device)
        wide[:, ::2, :, ::2] = x
        return wide[:, ::2, :, ::2]
    return x
