"""The built-in demo data, TensorFlow's resize, and a doctor for COCO files."""

from mixdet.datasets.demo import DemoDataset, make_demo_data
from mixdet.datasets.preflight import DatasetCheckHook
from mixdet.datasets.transforms import TFResize

__all__ = ['DatasetCheckHook', 'DemoDataset', 'TFResize', 'make_demo_data']
