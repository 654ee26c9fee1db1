# Steel defects from ImageNet weights of torchvision
_base_ = [
    '../_base_/models/ssdlite_mobilenetv2_in1k.py',
    '../_base_/datasets/neu-det_detection_300.py',
    '../_base_/schedules/schedule_small_6e.py',
    '../_base_/default_runtime.py',
]
model = dict(bbox_head=dict(num_classes=6))
auto_scale_lr = dict(base_batch_size=24)
