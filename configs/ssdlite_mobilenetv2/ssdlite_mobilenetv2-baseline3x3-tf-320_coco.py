# The network of the TF Object Detection API's ssdlite_mobilenet_v2_coco, for its weights: SAME padding, one sigmoid for
# each class and the background, NMS over all scores. Training starts from those weights.
_base_ = './ssdlite_mobilenetv2-baseline3x3_8xb24-600e_coco.py'
model = dict(
    backbone=dict(padding='same'),
    neck=dict(padding='same'),
    bbox_head=dict(loss_cls=dict(use_sigmoid=True)),
    test_cfg=dict(nms_pre=-1, score_thr=1e-8),
)
load_from = 'checkpoints/ssdlite_mobilenetv2-baseline3x3_coco.pth'
