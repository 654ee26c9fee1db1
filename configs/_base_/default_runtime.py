default_scope = 'mmdet'
custom_imports = dict(imports=['mixdet'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='mixdet.CheckpointHook', interval=5, max_keep_ckpts=3, save_best='coco/bbox_mAP', rule='greater'
    ),
    interrupt=dict(type='mixdet.InterruptHook'),
    nonfinite=dict(type='mixdet.NonFiniteHook'),
    folded_batch_norm=dict(type='mixdet.FoldedBatchNormHook'),
    image_cache=dict(type='mixdet.ImageCacheHook'),  # with cache=True
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'),
    report=dict(type='mixdet.ReportHook'),  # work_dir/report.html
)
custom_hooks = [dict(type='NumClassCheckHook')]

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
