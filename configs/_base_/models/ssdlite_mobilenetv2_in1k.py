# Backbone from ImageNet weights of torchvision (docs/weights.md), with the batch-norm and the input range they were
# trained with
_base_ = './ssdlite_mobilenetv2.py'
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(
        norm_cfg=dict(eps=1e-5),
        init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='checkpoints/mobilenetv2-baseline3x3_in1k.pth'),
    ),
)
