"""The built-in demo data, and TensorFlow's resize."""

from mixdet.datasets.demo import DemoDataset, make_demo_data
from mixdet.datasets.transforms import TFResize

__all__ = ['DemoDataset', 'TFResize', 'make_demo_data']
