# TensorFlow's COCO weights grown into mixed kernels, which compute the same function before training
_base_ = './ssdlite_mobilenetv2-baseline3x3-tf-320_coco.py'
model = dict(backbone=dict(kernel_sizes=(3, 5, 7)))
load_from = 'checkpoints/ssdlite_mobilenetv2-mixconv357_coco.pth'
