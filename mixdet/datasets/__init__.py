"""Is the data fit for training? Checks of annotations and images, transforms and the demo set. Uses ``registry``."""

from mixdet.datasets.cache import LoadCachedImage
from mixdet.datasets.cache_hook import ImageCacheHook
from mixdet.datasets.demo import DemoDataset, make_demo_data
from mixdet.datasets.photometric import PhotoMetricDistortion
from mixdet.datasets.preflight import DatasetCheckHook
from mixdet.datasets.ssd_crop import SSDCrop
from mixdet.datasets.transforms import TFResize

__all__ = [
    'DatasetCheckHook',
    'DemoDataset',
    'ImageCacheHook',
    'LoadCachedImage',
    'PhotoMetricDistortion',
    'SSDCrop',
    'TFResize',
    'make_demo_data',
]
