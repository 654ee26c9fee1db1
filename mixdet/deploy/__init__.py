"""From checkpoint to use: inference and export."""

from mixdet.deploy.inference import Detection, Detector

__all__ = ['Detection', 'Detector']
