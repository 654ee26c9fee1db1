"""How does one of our backbones get into another detector's config? May use ``benchmark`` and below."""

from mixdet.swap.outputs import Outputs, describe
from mixdet.swap.swap import named_backbone, read_config, swap_backbone

__all__ = ['Outputs', 'describe', 'named_backbone', 'read_config', 'swap_backbone']
