_base_ = '../../configs/ssdlite_mobilenetv2/ssdlite_mobilenetv2-baseline3x3_8xb24-600e_coco.py'
model = dict(backbone=dict(widen_factor=0.25, kernel_sizes=3), neck=dict(extra_channels=(32, 32, 32, 32)))
