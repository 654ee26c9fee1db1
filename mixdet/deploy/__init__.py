"""From checkpoint to use: inference, fusing and export."""

from mixdet.deploy.fuse import fuse
from mixdet.deploy.inference import Detection, Detector

__all__ = ['Detection', 'Detector', 'fuse']
