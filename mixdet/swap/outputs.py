"""What a backbone hands to its neck: ours say so, others are asked by running them."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from mixdet.registry import MODELS

# parts of other people's backbones that need compiled operators and do not change any shape
SHAPELESS = ('dcn', 'stage_with_dcn', 'sac', 'stage_with_sac', 'plugins', 'init_cfg', 'pretrained')
PROBE = 128  # px
_KNOWN: dict[str, 'Outputs'] = {}  # by config: large backbones take seconds to build


class Outputs(NamedTuple):
    """Channels and strides (px) of a backbone's outputs, in order."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]


def describe(backbone: dict) -> Outputs:
    """The outputs of the backbone that the config ``backbone`` builds.

    Whatever building or running it raises is passed on.
    """
    config = {key: value for key, value in copy.deepcopy(dict(backbone)).items() if key not in SHAPELESS}
    key = repr(config)
    if key not in _KNOWN:
        _KNOWN[key] = _measure(MODELS.build(config))
    return _KNOWN[key]


def _measure(model: nn.Module) -> Outputs:
    if isinstance(getattr(model, 'out_strides', None), Sequence):
        return Outputs(tuple(model.out_channels), tuple(model.out_strides))
    model.eval()
    with torch.no_grad():
        features = model(torch.zeros(1, 3, PROBE, PROBE))
    features = [features] if isinstance(features, torch.Tensor) else features
    # padding can make a map one row larger than PROBE / stride
    strides = tuple(1 << max(PROBE // feature.shape[-1], 1).bit_length() - 1 for feature in features)
    return Outputs(tuple(feature.shape[1] for feature in features), strides)
