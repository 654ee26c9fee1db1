# From ImageNet weights of TF-slim (docs/weights.md); they were trained with SAME padding and this config's input range.
_base_ = './ssdlite_mobilenetv1-baseline3x3_8xb24-600e_coco.py'
model = dict(
    backbone=dict(
        padding='same',
        init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='checkpoints/mobilenetv1-baseline3x3_in1k.pth'),
    )
)
