"""The package's version, its only home."""

__version__ = '0.2.0'
