"""MMDetection's own SSD head, with working inference."""

from mmdet.models.dense_heads import SSDHead as MMDetSSDHead

from mixdet.registry import MODELS


@MODELS.register_module()
class SSDHead(MMDetSSDHead):
    """``mmdet.SSDHead`` with working inference: ``model.bbox_head.type='mixdet.SSDHead'`` in MMDetection's SSD configs.

    ``predict_by_feat`` of its base class reads ``loss_cls``, which mmdet 3.3.0's ``SSDHead`` lacks, so none of
    MMDetection's SSDs can be validated or tested. This class can go when ``SSDHead`` has that attribute.
    """

    loss_cls = None  # the base class only asks it for custom class scores, see ``custom_cls_channels``
