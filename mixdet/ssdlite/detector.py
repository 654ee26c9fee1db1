"""The SSDLite detector, whose channels follow from its backbone."""

from typing import Optional, Union

from mmdet.models import BaseDetector, SingleStageDetector

from mixdet.registry import MODELS


@MODELS.register_module()
class SSDLite(SingleStageDetector):
    """MMDetection's single-stage detector, with the channels of neck and head taken from the part before them.

    ``neck.in_channels`` is the backbone's ``out_channels`` unless the config gives it (for a backbone without that
    attribute), and ``bbox_head.in_channels`` is the neck's ``out_channels``: to change the backbone, a config changes
    one place. Arguments are those of ``mmdet.SingleStageDetector``.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        bbox_head: dict,
        train_cfg: Optional[dict] = None,
        test_cfg: Optional[dict] = None,
        data_preprocessor: Optional[Union[dict, object]] = None,
        init_cfg: Optional[Union[dict, list]] = None,
    ) -> None:
        BaseDetector.__init__(self, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        if 'in_channels' not in neck:
            neck = {**neck, 'in_channels': self.backbone.out_channels}
        self.neck = MODELS.build(neck)
        self.bbox_head = MODELS.build(
            {**bbox_head, 'in_channels': self.neck.out_channels, 'train_cfg': train_cfg, 'test_cfg': test_cfg}
        )
        self.train_cfg = train_cfg
        self.test_cfg = test_cfg
