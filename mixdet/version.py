"""The one place that holds mixdet's version."""

__version__ = '0.1.0'
