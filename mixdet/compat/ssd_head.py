"""MMDetection's SSD head, able to predict.

Defect answered: mmdet 3.3.0's ``SSDHead`` has no ``loss_cls``, which ``predict_by_feat`` of its base asks for, so that
no SSD of MMDetection's can be validated or tested. Can go when ``SSDHead`` has it.
"""

from mmdet.models.dense_heads import SSDHead as MMDetSSDHead

from mixdet.registry import MODELS


@MODELS.register_module()
class SSDHead(MMDetSSDHead):
    """``mmdet.SSDHead`` with what prediction asks for: ``model.bbox_head.type='mixdet.SSDHead'`` in its configs."""

    loss_cls = None  # asked only whether it has classes of its own
