_base_ = './ssdlite.py'
model = dict(
    backbone=dict(
        type='mixdet.MobileNetV2',
        out_indices=('expansion', 'head'),
        kernel_sizes=3,
        norm_cfg={{_base_.norm_cfg}},
        init_cfg={{_base_.init_cfg}},
    )
)
