"""How do other people's weights become ours? Readers, name tables and growing kernels. May use ``engine`` and below."""

from mixdet.layers import grow
from mixdet.weights.convert import Entry, fill

__all__ = ['Entry', 'fill', 'grow']
