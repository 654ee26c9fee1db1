"""How does one of our backbones get into another detector's config? May use ``benchmark`` and below."""

from mixdet.swap.outputs import BackboneOutputs, backbone_outputs
from mixdet.swap.swap import Swap, load_config_leniently, named_backbone, swap_backbone
from mixdet.swap.writing import write_config

__all__ = [
    'BackboneOutputs',
    'Swap',
    'backbone_outputs',
    'load_config_leniently',
    'named_backbone',
    'swap_backbone',
    'write_config',
]
