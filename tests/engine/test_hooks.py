from types import SimpleNamespace

import pytest
import torch
from helpers import tiny_detector
from torch import nn

from mixdet.engine import ChannelsLastHook, CPUAmpOptimWrapper, MixConvImplHook
from mixdet.layers import MixConv2d


def test_channels_last_reaches_weights_and_features():
    model = tiny_detector()
    expected = model.eval().backbone(torch.ones(1, 3, 64, 64))[0]
    ChannelsLastHook().before_run(SimpleNamespace(model=model))
    features = model.backbone(torch.ones(1, 3, 64, 64))[0]
    assert features.is_contiguous(memory_format=torch.channels_last) and not features.is_contiguous()
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


def test_mixconv_impl_reaches_every_layer():
    model = tiny_detector()
    MixConvImplHook('padded').before_run(SimpleNamespace(model=model))
    assert {module.impl for module in model.modules() if isinstance(module, MixConv2d)} == {'padded'}
    with pytest.raises(ValueError, match="impl='fast'"):
        MixConvImplHook('fast')


def test_cpu_amp_runs_convolutions_in_bfloat16_and_steps():
    model = nn.Conv2d(3, 4, 1)
    before = model.weight.detach().clone()
    wrapper = CPUAmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    with wrapper.optim_context(model):
        out = model(torch.ones(1, 3, 4, 4))
    assert out.dtype == torch.bfloat16
    wrapper.update_params(out.float().square().mean())
    assert model.weight.dtype == torch.float32 and not torch.equal(model.weight, before)
