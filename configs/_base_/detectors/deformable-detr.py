# Deformable DETR of MMDetection without its backbone
_base_ = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
model = dict(backbone=dict(_delete_=True))
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP', rule='greater'))
val_evaluator = dict(type='mixdet.CocoMetric')
test_evaluator = val_evaluator
