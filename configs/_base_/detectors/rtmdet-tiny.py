# RTMDet-tiny of MMDetection without its backbone
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
model = dict(backbone=dict(_delete_=True))
# upstream says 16, but the learning rate is for 8 GPUs x 32 images
auto_scale_lr = dict(base_batch_size=256)
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP', rule='greater'))
val_evaluator = dict(type='mixdet.CocoMetric')
test_evaluator = val_evaluator
