"""SSDLite as the TensorFlow Object Detection API built it and the paper's Table 1 used it. Uses ``layers``."""

from mixdet.ssdlite.anchors import SSDLiteAnchorGenerator
from mixdet.ssdlite.detector import SSDLite
from mixdet.ssdlite.head import SSDLiteHead
from mixdet.ssdlite.mmdet_head import SSDHead
from mixdet.ssdlite.neck import SSDLiteNeck

__all__ = ['SSDHead', 'SSDLite', 'SSDLiteAnchorGenerator', 'SSDLiteHead', 'SSDLiteNeck']
