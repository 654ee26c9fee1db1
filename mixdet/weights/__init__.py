"""Reading other people's weights into our networks."""

from mixdet.weights.convert import Entry, fill, grow

__all__ = ['Entry', 'fill', 'grow']
