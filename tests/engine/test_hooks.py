from types import SimpleNamespace

import pytest
import torch
from helpers import tiny_detector

from mixdet.engine import ChannelsLastHook, MixConvImplHook
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
