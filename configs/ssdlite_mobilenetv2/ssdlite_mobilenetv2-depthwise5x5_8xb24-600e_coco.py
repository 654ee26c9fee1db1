_base_ = './ssdlite_mobilenetv2-baseline3x3_8xb24-600e_coco.py'
model = dict(backbone=dict(kernel_sizes=5))
