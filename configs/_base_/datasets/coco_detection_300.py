# COCO 2017 at 300x300, the size that the TF Object Detection API trained SSDLite at
_base_ = './coco_detection_320.py'
input_size = 300
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (input_size, input_size)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (input_size, input_size)
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
