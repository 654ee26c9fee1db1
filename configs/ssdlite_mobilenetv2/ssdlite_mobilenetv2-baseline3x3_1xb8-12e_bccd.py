# From scratch on blood cells, to compare with the two configs that start from pretrained weights
_base_ = [
    '../_base_/models/ssdlite_mobilenetv2.py',
    '../_base_/datasets/bccd_detection_300.py',
    '../_base_/schedules/schedule_small_12e.py',
    '../_base_/default_runtime.py',
]
model = dict(bbox_head=dict(num_classes=3))
