"""The built-in demo data."""

from mixdet.datasets.demo import DemoDataset, make_demo_data

__all__ = ['DemoDataset', 'make_demo_data']
