# COCO 2017 where every MMDetection config expects it, stretched to 320x320, with SSD's augmentation.
dataset_type = 'CocoDataset'
data_root = 'data/coco/'
input_size = 320
backend_args = None
cache = False  # True, or a folder: the images of the training are decoded only once (docs/speed.md)

train_pipeline = [
    # crops of at least 0.3 of a side are enlarged at most twice: 320 / (0.3 * 534)
    dict(type='mixdet.LoadCachedImage', cache=cache, min_side=534, backend_args=backend_args)
    if cache
    else dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='LoadAnnotations', with_bbox=True, box_type=None),  # boxes stay NumPy arrays, which is faster
    dict(
        type='mixdet.SSDCrop',  # Expand, MinIoURandomCrop, Resize and RandomFlip
        scale=(input_size, input_size),
        ratio_range=(1, 4),
        mean=[127.5, 127.5, 127.5],
        min_ious=(0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size=0.3,
        prob=0.5,
    ),
    dict(
        type='mixdet.PhotoMetricDistortion',
        brightness_delta=32,
        contrast_range=(0.5, 1.5),
        saturation_range=(0.5, 1.5),
        hue_delta=18,
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='Resize', scale=(input_size, input_size), keep_ratio=False),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

train_dataloader = dict(
    batch_size=24,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='RepeatDataset',
        times=5,
        dataset=dict(
            type=dataset_type,
            data_root=data_root,
            ann_file='annotations/instances_train2017.json',
            data_prefix=dict(img='train2017/'),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=train_pipeline,
            backend_args=backend_args,
        ),
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='mixdet.CocoMetric', ann_file=data_root + 'annotations/instances_val2017.json', backend_args=backend_args
)
test_evaluator = val_evaluator
