# Your own data in COCO format: copy this file, change the block below, and train. num_classes follows from the names.
_base_ = [
    '../_base_/models/ssdlite_mixnet.py',
    '../_base_/datasets/coco_detection_320.py',
    '../_base_/schedules/schedule_small.py',
    '../_base_/default_runtime.py',
]

# ---------------------------------------------------------------- change this
data_root = 'data/my_data/'
classes = ('first class', 'second class')  # in the order of "categories" in the annotation files
train_ann, train_images = 'annotations/train.json', 'images/'
val_ann, val_images = 'annotations/val.json', 'images/'  # None, '' without a validation set
max_epochs = 100
batch_size = 8
# ----------------------------------------------------------------------------

if not data_root.endswith('/'):
    data_root += '/'
model = dict(bbox_head=dict(num_classes=len(classes)))
metainfo = dict(classes=classes)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    dataset=dict(
        times=1,
        dataset=dict(
            data_root=data_root,
            metainfo=metainfo,
            ann_file=train_ann,
            data_prefix=dict(img=train_images),
            filter_cfg=dict(filter_empty_gt=True, min_size=1),
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(data_root=data_root, metainfo=metainfo, ann_file=val_ann, data_prefix=dict(img=val_images))
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + str(val_ann))
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=max_epochs, T_max=max_epochs)
default_hooks = dict(logger=dict(interval=5))
if val_ann is None:
    val_dataloader = val_cfg = val_evaluator = None
    test_dataloader = test_cfg = test_evaluator = None
