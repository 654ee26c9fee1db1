_base_ = './ssdlite.py'
model = dict(
    backbone=dict(
        type='mixdet.MixNet',
        arch='s',
        out_indices=('expansion', 'head'),
        norm_cfg={{_base_.norm_cfg}},
        init_cfg={{_base_.init_cfg}},
    )
)
