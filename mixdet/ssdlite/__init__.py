"""SSDLite as in the TensorFlow Object Detection API and the paper's Table 1: neck, head, anchors. Uses ``layers``."""

from mixdet.ssdlite.anchors import SSDLiteAnchorGenerator
from mixdet.ssdlite.detector import SSDLite
from mixdet.ssdlite.head import SSDLiteHead
from mixdet.ssdlite.mmdet_head import SSDHead
from mixdet.ssdlite.neck import SSDLiteNeck

__all__ = ['SSDHead', 'SSDLite', 'SSDLiteAnchorGenerator', 'SSDLiteHead', 'SSDLiteNeck']
