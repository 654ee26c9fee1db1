"""How is a trained detector used? Inference, fusing and export. May use ``engine`` and below."""

from mixdet.deploy.fusing import fuse
from mixdet.deploy.inference import Detection, Detector

__all__ = ['Detection', 'Detector', 'fuse']
