_base_ = [
    '../_base_/models/ssdlite_mobilenetv2_in1k.py',
    '../_base_/datasets/coco_detection_320.py',
    '../_base_/schedules/schedule_600e.py',
    '../_base_/default_runtime.py',
]
