# The schedule of every row of a study (tools/study.py): AdamW at batch size 24, warm-up, cosine decay to 0. The study
# sets the variables; with ema=True the moving average of the weights is evaluated in place of the last ones.
max_epochs = 12
lr = 0.0015
ema = False
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR', begin=0, end=max_epochs, T_max=max_epochs, by_epoch=True, convert_to_iter_based=True
    ),
]
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=lr, weight_decay=0.02), clip_grad=dict(max_norm=10)
)
auto_scale_lr = dict(enable=False, base_batch_size=24)
ema_hooks = [dict(type='EMAHook', momentum=0.01)] if ema else []  # over about 100 iterations
custom_hooks = [dict(type='NumClassCheckHook'), *ema_hooks]
