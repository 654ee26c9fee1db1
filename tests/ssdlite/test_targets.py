"""Against MMDetection's own assigner and head, image by image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.task_modules import MaxIoUAssigner
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mixdet.ssdlite import targets
from mixdet.ssdlite.head import SSDLiteHead
from mixdet.ssdlite.targets import Targets, assign, can_batch, find_targets

METAS = [dict(batch_input_shape=(96, 96), img_shape=(96, 96))] * 3
ASSIGNER = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.0, gt_max_assign_all=False)
# whole pixels on a coarse grid: equal boxes, and boxes that overlap an anchor equally, are then frequent
CORNERS = st.integers(0, 8).map(lambda n: 12.0 * n)
SIDES = st.tuples(CORNERS, CORNERS).map(sorted)
BOXES = st.lists(st.tuples(SIDES, SIDES).map(lambda sides: tuple(zip(*sides))), max_size=5)
BOXES = BOXES.map(lambda boxes: [(*low, *high) for low, high in boxes])


def head_with(decoded=False, **train_cfg):
    return SSDLiteHead(
        num_classes=3,
        in_channels=(8, 8, 8),
        anchor_generator=dict(type='mixdet.SSDLiteAnchorGenerator', num_levels=3),
        reg_decoded_bbox=decoded,
        train_cfg=ConfigDict(dict(dict(assigner=ASSIGNER, allowed_border=-1, pos_weight=-1), **train_cfg)),
    )


def instances_of(images):
    return [
        InstanceData(bboxes=torch.tensor(boxes).view(-1, 4), labels=torch.arange(len(boxes)) % 3) for boxes in images
    ]


def priors_of(head):
    return head.prior_generator.grid_priors([(6, 6), (3, 3), (2, 2)], image_size=(96, 96))


def image_by_image(head, instances):
    priors = priors_of(head)
    valid = [torch.ones(len(prior), dtype=torch.bool) for prior in priors]
    count = len(instances)
    *found, matched = AnchorHead.get_targets(head, [priors] * count, [valid] * count, instances, METAS[:count])
    return Targets(*(torch.cat(target, 1) for target in found), matched)


def assert_equal(found, expected):
    for name, one, other in zip(Targets._fields, found, expected):
        one, other = torch.as_tensor(one), torch.as_tensor(other)
        assert one.dtype == other.dtype and torch.equal(one, other), name


@settings(max_examples=60, deadline=None)
@given(
    images=st.lists(BOXES, min_size=1, max_size=3),
    assigner=st.fixed_dictionaries(
        dict(
            pos_iou_thr=st.sampled_from([0.3, 0.5]),
            neg_iou_thr=st.sampled_from([0.5, 0.3, (0.1, 0.3)]),
            min_pos_iou=st.sampled_from([0.0, 0.2]),
            gt_max_assign_all=st.booleans(),
            match_low_quality=st.booleans(),
        )
    ),
)
def test_assigns_what_mmdetection_assigns(images, assigner):
    assigner = MaxIoUAssigner(**assigner)
    boxes = [torch.tensor(each).view(-1, 4) for each in images]
    priors = torch.cat([torch.cat(priors_of(HEAD)), torch.tensor([[0.0, 0, 24, 24], [12, 12, 36, 36], [0, 0, 24, 24]])])
    found = assign(assigner, priors, boxes)
    first = 0
    for each, row in zip(boxes, found):
        instances = InstanceData(bboxes=each, labels=torch.zeros(len(each), dtype=torch.long))
        expected = assigner.assign(InstanceData(priors=priors), instances).gt_inds
        assert torch.equal(torch.where(row >= 0, row - first + 1, row + 1), expected)
        first += len(each)


HEAD = head_with()


@settings(max_examples=20, deadline=None)
@given(images=st.lists(BOXES, min_size=1, max_size=3), decoded=st.booleans(), pos_weight=st.sampled_from([-1, 2.5]))
def test_targets_are_those_of_mmdetections_head(images, decoded, pos_weight):
    """Bit for bit, also for images without objects."""
    images = [[box for box in boxes if box[0] < box[2] and box[1] < box[3]] for boxes in images]
    head = head_with(decoded, pos_weight=pos_weight)
    instances = instances_of(images)
    priors = priors_of(head)
    assert can_batch(head, instances, sum(map(len, priors)))
    assert_equal(find_targets(head, priors, instances, METAS[: len(images)], None), image_by_image(head, instances))


BOX = [[(12.0, 12, 48, 60)], [(0.0, 0, 90, 90), (36, 36, 72, 84)]]


class OtherHead(SSDLiteHead):
    def get_targets(self, *args, **kwargs):
        return super().get_targets(*args, **kwargs)


@pytest.mark.parametrize('change', [
    dict(allowed_border=0),
    dict(assigner=dict(ASSIGNER, ignore_iof_thr=0.5)),
    dict(assigner=dict(ASSIGNER, gpu_assign_thr=1)),
    dict(assigner=dict(ASSIGNER, iou_calculator=dict(type='BboxOverlaps2D_GLIP'))),
    dict(assigner=dict(type='ATSSAssigner', topk=9)),
    dict(sampler=dict(type='RandomSampler', num=8, pos_fraction=0.5)),
])  # fmt: skip
def test_goes_image_by_image_where_it_must(change):
    head = head_with(**change)
    instances = instances_of(BOX)
    assert not can_batch(head, instances, 186)


def test_image_by_image_with_very_many_objects(monkeypatch):
    instances, priors = instances_of(BOX), priors_of(HEAD)
    expected = image_by_image(HEAD, instances)
    assert can_batch(HEAD, instances, 186)
    monkeypatch.setattr(targets, 'MAX_OVERLAPS', 3 * 186 - 1)
    monkeypatch.setattr(targets, 'batch_targets', None)
    assert_equal(find_targets(HEAD, priors, instances, METAS[:2], None), expected)


def test_image_by_image_for_a_head_or_boxes_of_another_kind():
    generator = dict(type='mixdet.SSDLiteAnchorGenerator', num_levels=3)
    other = OtherHead(3, (8, 8, 8), anchor_generator=generator, train_cfg=HEAD.train_cfg)
    instances = instances_of(BOX)
    assert can_batch(HEAD, instances, 186) and not can_batch(other, instances, 186)
    instances[0].bboxes = HorizontalBoxes(instances[0].bboxes)
    assert not can_batch(HEAD, instances, 186)
