# FCOS from scratch on blood cells (BCCD, 640x480, 3 classes) at 320x240, with half of the usual width in neck and head:
# sized for one CPU core
_base_ = './fcos_mixnet-s_fpn_gn-head_8xb2-12e_coco.py'
model = dict(
    neck=dict(out_channels=128),
    bbox_head=dict(num_classes=3, in_channels=128, feat_channels=128),
)

data_root = 'data/bccd/'
bccd = dict(data_root=data_root, metainfo=dict(classes=('RBC', 'WBC', 'Platelets')), data_prefix=dict(img='images/'))
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2] = test_pipeline[1] = dict(type='Resize', scale=(320, 240))
train_pipeline[3] = dict(type='RandomFlip', prob=[0.3, 0.3], direction=['horizontal', 'vertical'])
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        **bccd, ann_file='annotations/instances_train.json', filter_cfg=dict(min_size=1), pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=4, num_workers=1, dataset=dict(**bccd, ann_file='annotations/instances_val.json', pipeline=test_pipeline)
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

max_epochs = 24
train_cfg = dict(max_epochs=max_epochs, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR', begin=0, end=max_epochs, T_max=max_epochs, by_epoch=True, convert_to_iter_based=True
    ),
]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.001, weight_decay=0.02), clip_grad=dict(max_norm=10)
)
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=4, max_keep_ckpts=1))
custom_hooks = [dict(type='NumClassCheckHook'), dict(type='mixdet.ChannelsLastHook')]
randomness = dict(seed=0)
