"""Channels and strides of a backbone's outputs: ours state them, others are run once to find out."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from mixdet.registry import MODELS

# settings of upstream backbones that need compiled operators or weights, and do not change any shape
SHAPELESS = ('dcn', 'stage_with_dcn', 'sac', 'stage_with_sac', 'plugins', 'init_cfg', 'pretrained')
PROBE = 128  # px, side of the image that a backbone is run on
_KNOWN: dict[str, 'BackboneOutputs'] = {}  # by config, since large backbones take seconds to build


class BackboneOutputs(NamedTuple):
    """Channels and strides (px) of a backbone's outputs, in order."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]


def backbone_outputs(backbone: dict) -> BackboneOutputs:
    """The outputs of the backbone that is built from the config ``backbone``.

    Whatever is raised when the backbone is built or run is passed on.
    """
    config = {key: value for key, value in copy.deepcopy(dict(backbone)).items() if key not in SHAPELESS}
    key = repr(config)
    if key not in _KNOWN:
        _KNOWN[key] = _outputs(MODELS.build(config))
    return _KNOWN[key]


def _outputs(model: nn.Module) -> BackboneOutputs:
    channels, strides = (getattr(model, name, None) for name in ('out_channels', 'out_strides'))
    if isinstance(channels, Sequence) and isinstance(strides, Sequence):
        return BackboneOutputs(tuple(channels), tuple(strides))
    model.eval()
    with torch.no_grad():
        features = model(torch.zeros(1, 3, PROBE, PROBE))
    features = [features] if isinstance(features, torch.Tensor) else features
    # the power of two below PROBE / size, as padding can make a map one row larger than PROBE / stride
    strides = tuple(1 << max(PROBE // feature.shape[-1], 1).bit_length() - 1 for feature in features)
    return BackboneOutputs(tuple(feature.shape[1] for feature in features), strides)
