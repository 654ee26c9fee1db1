import copy

import pytest

from mixdet.errors import UserError
from mixdet.swap.outputs import BackboneOutputs
from mixdet.swap.wiring import first_neck, rewire, walk


def outputs(*channels):
    return BackboneOutputs(channels=channels, strides=tuple(8 * 2**i for i in range(len(channels))))


OLD, NEW = outputs(64, 128), outputs(40, 120)


def test_walk_leaves_backbones_out():
    detector = dict(backbone=dict(type='B'), img_backbone=dict(type='B'), neck=[dict(type='N')], head=dict(a=dict()))
    assert [path for path, _ in walk(detector)] == ['', 'neck.0', 'head', 'head.a']


def test_the_first_neck_counts_if_it_states_its_channels():
    assert first_neck(dict()) is None and first_neck(dict(neck=dict(type='N'))) is None
    neck = dict(type='N', in_channels=[1])
    assert first_neck(dict(neck=[neck, dict(in_channels=2)])) is neck and first_neck(dict(neck=neck)) is neck


def test_lists_that_begin_with_the_old_channels_or_reverse_them():
    detector = dict(
        bbox_head=dict(in_channels=[64, 128, 256], out_channels=[64, 128, 256]),
        other=dict(in_channels=(128, 64)),
        same=dict(in_channels=[64, 64], out_channels=[64, 128]),
    )
    changes = rewire(detector, OLD, NEW)
    assert detector == dict(
        bbox_head=dict(in_channels=[40, 120, 256], out_channels=[40, 120, 256]),
        other=dict(in_channels=[120, 40]),
        same=dict(in_channels=[64, 64], out_channels=[64, 128]),
    )
    assert changes[0] == 'bbox_head.in_channels: [64, 128, 256] -> [40, 120, 256]' and len(changes) == 3


def test_a_head_without_a_neck_takes_the_deepest_output():
    detector = dict(
        rpn_head=dict(in_channels=128),
        roi_head=dict(bbox_roi_extractor=dict(out_channels=128), bbox_head=dict(in_channels=128, out_channels=128)),
        other=dict(in_channels=64),
    )
    rewire(detector, OLD, NEW)
    assert detector == dict(
        rpn_head=dict(in_channels=120),
        roi_head=dict(bbox_roi_extractor=dict(out_channels=120), bbox_head=dict(in_channels=120, out_channels=128)),
        other=dict(in_channels=64),
    )


@pytest.mark.parametrize(
    ('neck', 'message'),
    [
        (dict(type='FPN', in_channels=[64, 256], out_channels=8, num_outs=2), r'neck.in_channels=\[64, 256\] is'),
        (dict(type='ChannelMapper', in_channels=64, out_channels=8), 'neck.in_channels=64 is'),
        (None, 'no in_channels of neck or heads is'),
    ],
)
def test_what_was_made_for_other_channels_is_refused(neck, message):
    detector = dict(neck=neck) if neck else dict(bbox_head=dict(in_channels=7))
    before = copy.deepcopy(detector)
    with pytest.raises(UserError, match=message):
        rewire(detector, OLD, NEW)
    assert detector == before


def test_a_neck_that_does_not_take_the_new_channels_is_named():
    detector = dict(neck=dict(type='FPN', in_channels=[64, 128], out_channels=8, num_outs=1))
    with pytest.raises(UserError, match=r'neck FPN does not take \(40, 120\)'):
        rewire(detector, OLD, NEW)
