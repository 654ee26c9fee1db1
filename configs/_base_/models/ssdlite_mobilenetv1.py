_base_ = './ssdlite.py'
model = dict(
    backbone=dict(
        type='mixdet.MobileNetV1',
        out_indices=(2, 3),
        kernel_sizes=3,
        norm_cfg={{_base_.norm_cfg}},
        init_cfg={{_base_.init_cfg}},
    )
)
