# Defects of hot-rolled steel at 224x224, tested on the 354 images of the test split
_base_ = './neu-det_detection_300.py'
input_size = 224
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (input_size, input_size)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (input_size, input_size)
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, ann_file='annotations/instances_test.json'))
test_evaluator = dict(ann_file=_base_.data_root + 'annotations/instances_test.json')
