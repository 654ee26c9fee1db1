# SSDLite-MixNet-S from scratch on the built-in demo set, sized for 2 CPU cores: 160x160, where the two coarsest of
# SSDLite's six levels would have a single cell and are left out
_base_ = ['../_base_/models/ssdlite_mixnet.py', '../_base_/datasets/demo.py', '../_base_/default_runtime.py']
norm_cfg = dict(momentum=0.1)
model = dict(
    backbone=dict(norm_cfg=norm_cfg),
    neck=dict(extra_channels=(512, 256), norm_cfg=norm_cfg),
    bbox_head=dict(num_classes=4, anchor_generator=dict(num_levels=4), norm_cfg=norm_cfg),
)

max_epochs = 12
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(
        type='CosineAnnealingLR',
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        eta_min_ratio=0.01,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.002, weight_decay=0.02), clip_grad=dict(max_norm=10)
)

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=4))
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='mixdet.ChannelsLastHook'),
    dict(type='mixdet.PredictionGridHook'),
]
randomness = dict(seed=0)
