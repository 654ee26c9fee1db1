# SSDLite as in the TensorFlow Object Detection API, which the paper's Table 1 used; the config that inherits from this
# one adds the backbone. Batch-norm's epsilon, initialisation, input range and NMS are TensorFlow's; the softmax loss
# with hard negative mining is that of MMDetection's SSD.
norm_cfg = dict(type='BN', eps=0.001, momentum=0.03)
init_cfg = dict(type='TruncNormal', layer='Conv2d', std=0.03)
model = dict(
    type='mixdet.SSDLite',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True,
        pad_size_divisor=1,
    ),
    neck=dict(type='mixdet.SSDLiteNeck', norm_cfg=norm_cfg, init_cfg=init_cfg),
    bbox_head=dict(
        type='mixdet.SSDLiteHead',
        num_classes=80,
        norm_cfg=norm_cfg,
        init_cfg=init_cfg,
        anchor_generator=dict(type='mixdet.SSDLiteAnchorGenerator'),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_cls=dict(type='CrossEntropyLoss', loss_weight=1.0),
        loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.0,
            ignore_iof_thr=-1,
            gt_max_assign_all=False,
        ),
        sampler=dict(type='PseudoSampler'),
        neg_pos_ratio=3,
        allowed_border=-1,
        pos_weight=-1,
    ),
    test_cfg=dict(nms_pre=1000, nms=dict(type='nms', iou_threshold=0.6), score_thr=0.001, max_per_img=100),
)
