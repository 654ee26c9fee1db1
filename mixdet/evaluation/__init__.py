"""How good are the detections? COCO numbers, details of each image, result files. Uses ``registry`` and ``errors``."""

from mixdet.evaluation.metric import CocoMetric

__all__ = ['CocoMetric']
