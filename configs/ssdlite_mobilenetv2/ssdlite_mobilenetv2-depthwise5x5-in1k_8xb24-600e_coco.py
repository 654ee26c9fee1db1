_base_ = './ssdlite_mobilenetv2-baseline3x3-in1k_8xb24-600e_coco.py'
model = dict(backbone=dict(kernel_sizes=5, init_cfg=dict(checkpoint='checkpoints/mobilenetv2-depthwise5x5_in1k.pth')))
