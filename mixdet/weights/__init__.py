"""Reading other people's weights into our networks."""

from mixdet.layers import grow
from mixdet.weights.convert import Entry, fill

__all__ = ['Entry', 'fill', 'grow']
