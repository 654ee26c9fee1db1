_base_ = './ssdlite_mobilenetv1-baseline3x3-in1k_8xb24-600e_coco.py'
model = dict(backbone=dict(kernel_sizes=(3, 5), init_cfg=dict(checkpoint='checkpoints/mobilenetv1-mixconv35_in1k.pth')))
