"""MMDetection's own SSD head, with working inference."""

from mmdet.models.dense_heads import SSDHead as MMDetSSDHead

from mixdet.registry import MODELS


@MODELS.register_module()
class SSDHead(MMDetSSDHead):
    """``mmdet.SSDHead`` that can predict: ``model.bbox_head.type='mixdet.SSDHead'`` in MMDetection's SSD configs.

    mmdet 3.3.0's has no ``loss_cls``, which ``predict_by_feat`` of its base class reads, so that none of its SSDs can
    be validated or tested. This class can go when ``SSDHead`` has that attribute.
    """

    loss_cls = None  # the base class only asks whether it has class labels of its own
