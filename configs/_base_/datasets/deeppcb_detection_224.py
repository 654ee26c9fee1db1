# Defects of printed circuits (DeepPCB, https://github.com/tangsanli5201/DeepPCB; 640x640 px) in COCO format, at
# 224x224. The official training part of 1,000 images is split into 900 and 100; the test part is the official one, 500
# images.
_base_ = './coco_detection_300.py'
data_root = 'data/deeppcb/'
classes = ('open', 'short', 'mousebite', 'spur', 'copper', 'pin-hole')
common = dict(data_root=data_root, metainfo=dict(classes=classes), data_prefix=dict(img='images/'))
input_size = 224
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (input_size, input_size)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (input_size, input_size)
train_dataloader = dict(
    num_workers=2,
    dataset=dict(
        times=1,
        dataset=dict(
            **common,
            ann_file='annotations/instances_train.json',
            filter_cfg=dict(min_size=1),
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(dataset=dict(**common, ann_file='annotations/instances_val.json', pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(**common, ann_file='annotations/instances_test.json', pipeline=test_pipeline))
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = dict(ann_file=data_root + 'annotations/instances_test.json')
