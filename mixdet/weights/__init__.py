"""How do weights from elsewhere get into our networks? Readers and name tables. May use ``engine`` and below."""

from mixdet.weights.filling import Entry, fill

__all__ = ['Entry', 'fill']
