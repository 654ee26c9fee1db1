# Blood cells (BCCD, 640x480 px, 205 training and 87 validation images) in COCO format
# (https://github.com/Shenggan/BCCD_Dataset), at 300x300
_base_ = './coco_detection_300.py'
data_root = 'data/bccd/'
common = dict(data_root=data_root, metainfo=dict(classes=('RBC', 'WBC', 'Platelets')), data_prefix=dict(img='images/'))
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    dataset=dict(
        times=1,
        dataset=dict(**common, ann_file='annotations/instances_train.json', filter_cfg=dict(min_size=1)),
    ),
)
val_dataloader = dict(dataset=dict(**common, ann_file='annotations/instances_val.json'))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
