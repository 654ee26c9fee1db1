# YOLOX-tiny of MMDetection without its backbone
_base_ = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
model = dict(backbone=dict(_delete_=True))
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP', rule='greater'))
val_evaluator = dict(type='mixdet.CocoMetric')
test_evaluator = val_evaluator
