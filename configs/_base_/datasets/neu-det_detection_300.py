# Defects of hot-rolled steel (NEU surface defect database, 200x200 px, 1,237 training and 179 validation images) in
# COCO format, at 300x300
_base_ = './coco_detection_300.py'
data_root = 'data/neu-det/'
classes = ('crazing', 'inclusion', 'patches', 'pitted_surface', 'rolled-in_scale', 'scratches')
common = dict(data_root=data_root, metainfo=dict(classes=classes), data_prefix=dict(img='images/'))
train_dataloader = dict(
    batch_size=24,
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
