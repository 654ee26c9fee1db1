"""The targets of all images of a batch at once, where MMDetection's heads go image by image."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import torch
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.task_modules import BboxOverlaps2D, MaxIoUAssigner, PseudoSampler
from mmengine.structures import InstanceData
from torch import Tensor

MAX_OVERLAPS = 2**25


class Targets(NamedTuple):
    """What N images ask of the A anchors that they share, as MMDetection's ``get_targets`` gives it.

    Attributes:
        labels: classes (N, A), that of the background for all but matched anchors.
        label_weights: (N, A); 0 for ignored anchors.
        boxes: targets (N, A, 4); 0 where there is none.
        box_weights: (N, A, 4); 1 for matched anchors.
        matched: number of matched anchors, at least one for each image.
    """

    labels: Tensor
    label_weights: Tensor
    boxes: Tensor
    box_weights: Tensor
    matched: Any


def can_batch(head: AnchorHead, instances: Sequence[InstanceData], anchors: int) -> bool:
    """Whether ``batch_targets`` gives the targets of ``head``: it matches by overlap alone, and all anchors.

    Not with so many objects that all overlaps at once would take too much memory.
    """
    assigner, sampler = head.assigner, head.sampler
    return (
        all(getattr(type(head), name) is getattr(AnchorHead, name) for name in ('get_targets', '_get_targets_single'))
        and type(assigner) is MaxIoUAssigner
        and type(assigner.iou_calculator) is BboxOverlaps2D
        and assigner.perm_repeat_gt_cfg is None
        and not assigner.gpu_assign_thr > 0
        and not assigner.ignore_iof_thr > 0
        and assigner.pos_iou_thr > 0
        and isinstance(assigner.neg_iou_thr, (float, tuple))
        and type(sampler) is PseudoSampler
        and head.train_cfg['allowed_border'] < 0
        and all(isinstance(each.bboxes, Tensor) for each in instances)
        and sum(len(each.bboxes) for each in instances) * anchors <= MAX_OVERLAPS
    )


def batch_targets(head: AnchorHead, priors: Tensor, instances: Sequence[InstanceData]) -> Targets:
    """The targets of ``head`` for ``priors`` (A, 4) and the objects of N images, without waiting for a GPU."""
    assigned = assign(head.assigner, priors, [each.bboxes for each in instances])
    positive = assigned >= 0
    labels = torch.cat([each.labels for each in instances])
    boxes = torch.cat([each.bboxes for each in instances])
    if len(boxes):
        rows = assigned.clamp(min=0)
        labels = torch.where(positive, labels[rows], head.num_classes)
        boxes = boxes[rows].flatten(0, 1)
        if not head.reg_decoded_bbox:
            boxes = head.bbox_coder.encode(priors.repeat(len(instances), 1), boxes)
        boxes = torch.where(positive[..., None], boxes.view(*assigned.shape, -1), 0.0)
    else:
        labels, boxes = torch.full_like(assigned, head.num_classes), priors.new_zeros(*assigned.shape, 4)
    weights = (assigned >= -1).to(priors.dtype)
    if head.train_cfg['pos_weight'] > 0:
        weights = weights.masked_fill(positive, head.train_cfg['pos_weight'])
    box_weights = positive[..., None].expand_as(boxes).to(priors.dtype)
    return Targets(labels, weights, boxes, box_weights, positive.sum(1).clamp(min=1).sum())


def assign(assigner: MaxIoUAssigner, priors: Tensor, boxes: Sequence[Tensor]) -> Tensor:
    """MMDetection's ``MaxIoUAssigner`` for several images: for each image and anchor the row among all boxes (N, A).

    -1 is the background, -2 an anchor to ignore.

    Args:
        assigner: its thresholds are used.
        priors: anchors (A, 4).
        boxes: those of each image (n_i, 4).
    """
    device, images, anchors = priors.device, len(boxes), len(priors)
    counts = torch.tensor([len(each) for each in boxes])
    image = torch.arange(images).repeat_interleave(counts).to(device)[:, None]  # of each box
    number = torch.arange(len(image), device=device)[:, None]
    overlaps = assigner.iou_calculator(torch.cat(list(boxes)), priors)
    target = image.expand_as(overlaps)

    best = overlaps.new_zeros(images, anchors).scatter_reduce(0, target, overlaps, 'amax')
    is_best = overlaps == best[image[:, 0]]
    nothing = torch.full_like(best, len(image), dtype=torch.long)
    first = nothing.scatter_reduce(0, target, torch.where(is_best, number, len(image)), 'amin')
    low, high = assigner.neg_iou_thr if isinstance(assigner.neg_iou_thr, tuple) else (0, assigner.neg_iou_thr)
    is_empty = (counts == 0).to(device)[:, None]
    assigned = torch.where((best >= low) & (best < high) | is_empty, -1, -2)
    assigned = first.where(best >= assigner.pos_iou_thr, assigned)
    if assigner.match_low_quality and len(image):
        # every box gets its best anchors; of several boxes with the same the last one does
        most, at = overlaps.max(1, keepdim=True)
        one = torch.zeros_like(is_best).scatter(1, at, True)
        is_most = (overlaps == most if assigner.gt_max_assign_all else one) & (most >= assigner.min_pos_iou)
        forced = torch.full_like(assigned, -1)
        forced = forced.scatter_reduce(0, target, torch.where(is_most, number, -1), 'amax')
        assigned = forced.where(forced >= 0, assigned)
    return assigned


def find_targets(
    head: AnchorHead,
    priors: Sequence[Tensor],
    instances: Sequence[InstanceData],
    metas: Sequence[dict],
    ignored: Optional[Sequence[InstanceData]],
) -> Targets:
    """The targets of ``head`` for its anchors on each level, which all images share.

    Those of MMDetection's ``get_targets``, at once for all images where that is possible.
    """
    if can_batch(head, instances, sum(map(len, priors))):
        return batch_targets(head, torch.cat(list(priors)), instances)
    valid = [prior.new_ones(len(prior), dtype=torch.bool) for prior in priors]
    images = len(metas)
    *found, matched = head.get_targets([priors] * images, [valid] * images, instances, metas, ignored)
    labels, label_weights, boxes, box_weights = (torch.cat(target, dim=1) for target in found)
    return Targets(labels, label_weights, boxes, box_weights, matched)
