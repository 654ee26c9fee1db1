"""How good are the detections? COCO's numbers, details of each image, results files, test-time augmentation. May use
``datasets`` and below.
"""

from mixdet.evaluation.metric import CocoMetric

__all__ = ['CocoMetric']
