# FCOS of MMDetection without its backbone, with ImageNet normalisation in RGB
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(_delete_=True),
)
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP', rule='greater'))
val_evaluator = dict(type='mixdet.CocoMetric')
test_evaluator = val_evaluator
