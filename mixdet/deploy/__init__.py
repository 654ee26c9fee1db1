"""Getting a trained network ready for use."""

from mixdet.deploy.fuse import fuse

__all__ = ['fuse']
