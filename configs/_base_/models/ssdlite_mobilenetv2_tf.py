# The network of the TF Object Detection API's ssdlite_mobilenet_v2_coco, for its weights (docs/weights.md): SAME
# padding, one sigmoid for each class and the background, NMS over all scores
_base_ = './ssdlite_mobilenetv2.py'
model = dict(
    backbone=dict(padding='same'),
    neck=dict(padding='same'),
    bbox_head=dict(loss_cls=dict(use_sigmoid=True)),
    test_cfg=dict(nms_pre=-1, score_thr=1e-8),
)
