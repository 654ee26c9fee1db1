# Blood cells from TensorFlow's COCO detector, at the 300x300 it was trained at
_base_ = [
    '../_base_/models/ssdlite_mobilenetv2_tf.py',
    '../_base_/datasets/bccd_detection_300.py',
    '../_base_/schedules/schedule_small_12e.py',
    '../_base_/default_runtime.py',
]
model = dict(bbox_head=dict(num_classes=3))
load_from = 'checkpoints/ssdlite_mobilenetv2-baseline3x3_coco.pth'
