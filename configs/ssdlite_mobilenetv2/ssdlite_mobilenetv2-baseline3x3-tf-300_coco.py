# At 300x300, the size the published weights were trained at
_base_ = [
    '../_base_/models/ssdlite_mobilenetv2_tf.py',
    '../_base_/datasets/coco_detection_300.py',
    '../_base_/schedules/schedule_600e.py',
    '../_base_/default_runtime.py',
]
load_from = 'checkpoints/ssdlite_mobilenetv2-baseline3x3_coco.pth'
