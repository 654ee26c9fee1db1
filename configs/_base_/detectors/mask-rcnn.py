# Mask R-CNN of MMDetection without its backbone
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
model = dict(backbone=dict(_delete_=True))
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP', rule='greater'))
val_evaluator = dict(type='mixdet.CocoMetric')
test_evaluator = val_evaluator
