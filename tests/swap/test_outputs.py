import pytest

from mixdet.swap import backbone_outputs


@pytest.mark.parametrize(
    ('backbone', 'channels', 'strides'),
    [
        (dict(type='ResNet', depth=18), (64, 128, 256, 512), (4, 8, 16, 32)),
        (
            dict(type='ResNet', depth=18, dcn=dict(type='DCNv2'), stage_with_dcn=(False, True, True, True)),
            (64, 128, 256, 512),
            (4, 8, 16, 32),
        ),
        (
            dict(type='ResNet', depth=18, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), out_indices=(3,)),
            (512,),
            (16,),
        ),
        (dict(type='CSPDarknet', deepen_factor=0.33, widen_factor=0.25), (64, 128, 256), (8, 16, 32)),
        (dict(type='SSDVGG', depth=16, ceil_mode=True, out_indices=(3, 4), out_feature_indices=(22, 34)),
         (512, 1024), (8, 16)),
        (dict(type='mixdet.MixNet', out_indices=('expansion', 'head')), (720, 1536), (16, 32)),
    ],
)  # fmt: skip
def test_channels_and_strides(backbone, channels, strides):
    assert backbone_outputs(backbone) == (channels, strides)


def test_errors_of_building_are_passed_on():
    with pytest.raises(KeyError):
        backbone_outputs(dict(type='NoSuchNet'))
