import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mixdet.compat.ops import nms
from mixdet.registry import MODELS

METAS = [dict(batch_input_shape=(96, 96), img_shape=(96, 96), scale_factor=(0.5, 0.75))] * 2
TRAIN_CFG = ConfigDict(
    assigner=dict(
        type='mmdet.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.0, gt_max_assign_all=False
    ),
    sampler=dict(type='mmdet.PseudoSampler'),
    neg_pos_ratio=3,
    allowed_border=-1,
    pos_weight=-1,
)
TEST_CFG = ConfigDict(nms_pre=1000, nms=dict(type='nms', iou_threshold=0.6), score_thr=0.001, max_per_img=100)
SOFTMAX = dict(loss_cls=dict(type='mmdet.CrossEntropyLoss'))
SIGMOID = dict(loss_cls=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True))
FOCAL = dict(loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True), background_class=False)


def build_head(train_cfg=TRAIN_CFG, test_cfg=TEST_CFG, **changes):
    torch.manual_seed(0)
    head = MODELS.build(
        dict(
            type='mixdet.SSDLiteHead',
            num_classes=3,
            in_channels=(8, 8, 8),
            anchor_generator=dict(type='mixdet.SSDLiteAnchorGenerator', num_levels=3),
            bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]),
            loss_bbox=dict(type='mmdet.SmoothL1Loss', beta=1.0),
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            **changes,
        )
    )
    head.init_weights()
    return head


def features():
    torch.manual_seed(1)
    return [torch.randn(2, 8, side, side) for side in (6, 3, 2)]


def ground_truth():
    boxes = torch.tensor([[10.0, 10, 40, 42], [50, 30, 90, 80]])
    return [
        InstanceData(bboxes=boxes, labels=torch.tensor([0, 2])),
        InstanceData(bboxes=boxes[:1], labels=torch.tensor([1])),
    ]


def test_output_shapes():
    for changes, classes in ((SOFTMAX, 4), (SIGMOID, 4), (FOCAL, 3)):
        scores, boxes = build_head(**changes)(features())
        assert [tuple(s.shape) for s in scores] == [(2, a * classes, n, n) for a, n in ((3, 6), (6, 3), (6, 2))]
        assert [tuple(b.shape) for b in boxes] == [(2, a * 4, n, n) for a, n in ((3, 6), (6, 3), (6, 2))]


@pytest.mark.parametrize('changes', [SOFTMAX, SIGMOID, FOCAL], ids=['softmax', 'sigmoid', 'focal'])
def test_loss_has_a_gradient_for_every_parameter(changes):
    cfg = TRAIN_CFG if changes is not FOCAL else ConfigDict({**TRAIN_CFG, 'neg_pos_ratio': None})
    head = build_head(train_cfg=cfg, **changes)
    losses = head.loss_by_feat(*head(features()), ground_truth(), METAS)
    assert set(losses) == {'loss_cls', 'loss_bbox'} and all(
        torch.isfinite(loss) and loss > 0 for loss in losses.values()
    )
    sum(losses.values()).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    assert any(conv[-1].weight.grad.any() for conv in head.cls_convs)


def flat(outputs, size):
    return torch.cat([out.permute(0, 2, 3, 1).reshape(out.size(0), -1, size) for out in outputs], 1)


def targets_of(head, instances, ignored=None):
    """Labels, their weights, box targets and their weights (N, anchors, ...), and the number of matched anchors."""
    priors = head.prior_generator.grid_priors([(6, 6), (3, 3), (2, 2)], image_size=(96, 96))
    valid = [torch.ones(len(p), dtype=torch.bool) for p in priors]
    images = len(instances)
    *targets, matched = head.get_targets([priors] * images, [valid] * images, instances, METAS[:images], ignored)
    return (*(torch.cat(target, 1) for target in targets), matched)


def losses_of_anchors(head, scores, labels):
    """Classification loss (N, anchors) of each anchor, by PyTorch's functions."""
    scores = flat(scores, 4)
    if head.use_sigmoid_cls:
        targets = F.one_hot(labels, 4).float()
        return F.binary_cross_entropy_with_logits(scores, targets, reduction='none').sum(2)
    return F.cross_entropy(scores.transpose(1, 2), labels, reduction='none')


@pytest.mark.parametrize('changes', [SOFTMAX, SIGMOID], ids=['softmax', 'sigmoid'])
@pytest.mark.parametrize('ignore', [False, True], ids=['', 'ignore'])
def test_loss_is_that_of_positives_and_hardest_negatives(changes, ignore):
    """Written out image by image with topk, as in SSD's paper; anchors on ignored boxes do not count."""
    assigner = {**TRAIN_CFG.assigner, 'ignore_iof_thr': 0.5}
    head = build_head(train_cfg=ConfigDict({**TRAIN_CFG, 'assigner': assigner, 'pos_weight': 2.0}), **changes)
    for convs in head.cls_convs:  # negatives are nearly right
        convs[-1].bias.data.view(-1, 4).add_(torch.tensor([-3.0, -3, -3, 3]))
    ignored = [InstanceData(bboxes=torch.tensor([[0.0, 48, 96, 96]]))] * 2 if ignore else None
    scores, deltas = head(features())
    losses = head.loss_by_feat(scores, deltas, ground_truth(), METAS, ignored)
    labels, label_weights, targets, weights, positives = targets_of(head, ground_truth(), ignored)
    assert (labels < 3).sum() == positives > 2
    total = 0
    for each, positive, weight in zip(losses_of_anchors(head, scores, labels), labels < 3, label_weights):
        count = 3 * int(positive.sum())
        hardest = each[~positive & (weight == 1)].topk(count)[0]
        total += 2 * each[positive].sum() + hardest.sum()
        assert hardest.max() < 1
        if ignore:  # some that are ignored would be among the hardest
            assert each[~positive].topk(count)[0].sum() > 1.01 * hardest.sum()
    torch.testing.assert_close(losses['loss_cls'], total / positives)
    box = F.smooth_l1_loss(flat(deltas, 4) * weights, targets * weights, reduction='sum') / positives
    torch.testing.assert_close(losses['loss_bbox'], box)


@pytest.mark.parametrize('minimum', [0, 3])
def test_an_image_without_objects_can_still_have_negatives(minimum):
    """It counts as one anchor in the average."""
    head = build_head(train_cfg=ConfigDict({**TRAIN_CFG, 'min_negatives': minimum}))
    nothing = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    scores, deltas = head(features())
    background = losses_of_anchors(head, scores, torch.full((2, 186), 3))
    losses = head.loss_by_feat(scores, deltas, [nothing, nothing], METAS)
    assert losses['loss_bbox'] == 0
    torch.testing.assert_close(losses['loss_cls'], background.topk(minimum, dim=1)[0].sum() / 2)

    alone = head.loss_by_feat([s[:1] for s in scores], [d[:1] for d in deltas], ground_truth()[:1], METAS[:1])
    beside = head.loss_by_feat(scores, deltas, [ground_truth()[0], nothing], METAS)
    *_, matched = targets_of(head, ground_truth()[:1])
    expected = (matched * alone['loss_cls'] + background[1].topk(minimum)[0].sum()) / (matched + 1)
    torch.testing.assert_close(beside['loss_cls'], expected)
    torch.testing.assert_close(beside['loss_bbox'], matched * alone['loss_bbox'] / (matched + 1))


def test_without_a_background_class_scores_start_at_one_percent():
    """The prior of focal loss; other losses start where ``init_cfg`` says."""
    init_cfg = dict(type='TruncNormal', layer='Conv2d', std=0.03)
    for changes, expected in ((FOCAL, 0.01), (SIGMOID, 0.5)):
        head = build_head(init_cfg=init_cfg, **changes)
        for convs in head.cls_convs:
            torch.testing.assert_close(convs[-1].bias.sigmoid(), torch.full_like(convs[-1].bias, expected))
        assert not any(convs[-1].bias.any() for convs in head.reg_convs)


def test_decoded_boxes_can_be_regressed():
    head = MODELS.build(
        dict(
            type='mixdet.SSDLiteHead',
            num_classes=3,
            in_channels=(8, 8, 8),
            anchor_generator=dict(type='mixdet.SSDLiteAnchorGenerator', num_levels=3),
            reg_decoded_bbox=True,
            loss_bbox=dict(type='mmdet.GIoULoss'),
            train_cfg=TRAIN_CFG,
        )
    )
    losses = head.loss_by_feat(*head(features()), ground_truth(), METAS)
    assert 0 < losses['loss_bbox'] < 2


def outputs_with(detections, num_classes=4):
    """Raw outputs in which anchor i of image 0 has the given scores (softmax logits), all others background."""
    count = 6 * 6 * 3 + 3 * 3 * 6 + 2 * 2 * 6
    scores = torch.zeros(2, count, num_classes)
    scores[..., -1] = 20
    for anchor, logits in detections.items():
        scores[0, anchor] = torch.tensor(logits)
    levels = []
    for side, anchors in ((6, 3), (3, 6), (2, 6)):
        level, scores = scores[:, : side * side * anchors], scores[:, side * side * anchors :]
        levels.append(level.reshape(2, side, side, anchors * num_classes).permute(0, 3, 1, 2))
    deltas = [torch.zeros(2, anchors * 4, side, side) for side, anchors in ((6, 3), (3, 6), (2, 6))]
    return levels, deltas


def test_prediction_is_clipped_after_nms_and_rescaled():
    head = build_head()
    scores, deltas = outputs_with({1: [4.0, 0, 0, 0]})  # the wide anchor of the top left cell
    best, other = head.predict_by_feat(scores, deltas, batch_img_metas=METAS)
    assert len(other) == 0
    expected = [0, 8 - 96 * 0.2 / 2**0.5 / 2, 8 + 96 * 0.2 * 2**0.5 / 2, 8 + 96 * 0.2 / 2**0.5 / 2]
    assert best.bboxes[0].tolist() == pytest.approx(expected, abs=1e-4)
    assert best.labels[0] == 0
    assert best.scores[0].item() == pytest.approx(torch.tensor([4.0, 0, 0, 0]).softmax(0)[0].item())
    rescaled = head.predict_by_feat(scores, deltas, batch_img_metas=METAS, rescale=True)[0]
    torch.testing.assert_close(rescaled.bboxes, best.bboxes / torch.tensor([0.5, 0.75, 0.5, 0.75]))


@pytest.mark.parametrize('with_nms', [True, False])
def test_boxes_outside_the_image_are_dropped(with_nms):
    """The squares (9.6 px) of five cells of a row, four of them moved out of the image on one side each."""
    head = build_head()
    scores, deltas = outputs_with({3 * cell: [5.0 - cell / 10, 0, 0, 0] for cell in range(5)})
    for cell, (x, y) in enumerate([(-100.0, 0.0), (100, 0), (0, -100), (0, 100)]):
        deltas[0][0, 0:2, 0, cell] = torch.tensor([x, y])
    for rescale in (False, True):
        found = head.predict_by_feat(scores, deltas, batch_img_metas=METAS, rescale=rescale, with_nms=with_nms)[0]
        kept = found[found.scores > 0.5]  # without NMS the background's weak scores are there too
        assert kept.labels.tolist() == [0]
        expected = torch.tensor([[72 - 4.8, 8 - 4.8, 72 + 4.8, 8 + 4.8]])
        torch.testing.assert_close(kept.bboxes, expected / torch.tensor([0.5, 0.75] * 2) if rescale else expected)


def test_nms_is_per_class_even_where_unclipped_boxes_are_negative():
    """mmcv's batched_nms moves class 1 by the largest coordinate plus one: here right onto the box of class 0."""
    bboxes = torch.tensor([[60.0, 60, 100, 100], [-41, -41, -1, -1]])
    scores = torch.tensor([[0.9, 0, 0], [0, 0.8, 0]]).flatten()
    found = build_head()._suppress(scores, bboxes, 2, dict(type='nms', iou_threshold=0.6), max_per_img=100)
    assert torch.equal(found.bboxes, bboxes) and found.labels.tolist() == [0, 1]


def test_limits_of_the_prediction():
    scores, deltas = outputs_with({i: [5.0, 0, 0, 0] for i in range(0, 108, 6)})
    assert len(build_head().predict_by_feat(scores, deltas, batch_img_metas=METAS)[0]) > 20
    for change, expected in (({'max_per_img': 5}, 5), ({'nms_pre': 7}, 7), ({'score_thr': 0.995}, 0)):
        head = build_head(test_cfg=ConfigDict({**TEST_CFG, **change}))
        assert len(head.predict_by_feat(scores, deltas, batch_img_metas=METAS)[0]) == expected


@pytest.mark.parametrize('threshold,nms_pre', [(0.0, -1), (0.0, 50), (0.9, -1), (0.9, 50), (2.0, -1)])
def test_candidates_are_the_best_scores_above_the_threshold(threshold, nms_pre):
    torch.manual_seed(0)
    scores, bboxes = torch.rand(100, 3), torch.rand(100, 4).cumsum(1)
    scores[5, 1] = torch.nan
    found = build_head()._predict_image(
        scores, bboxes, dict(img_shape=(100, 100)), dict(score_thr=threshold, nms_pre=nms_pre), False, False
    )
    above = (scores.flatten() > threshold).nonzero().flatten()
    expected = above[scores.flatten()[above].argsort(descending=True)][: nms_pre if nms_pre > 0 else None]
    assert torch.equal(found.scores, scores.flatten()[expected])
    assert torch.equal(found.labels, expected % 3) and torch.equal(found.bboxes, bboxes[expected // 3])


@pytest.mark.parametrize('max_per_img', [1, 5, 100, -1])
def test_nms_of_the_best_first_is_nms_of_all(max_per_img):
    """Crowded boxes, of which few survive, so that more and more candidates are needed."""
    torch.manual_seed(0)
    corners = torch.rand(3000, 2) * 60
    results = InstanceData(
        bboxes=torch.cat([corners, corners + 30 + torch.rand(3000, 2) * 10], 1) - 20,
        scores=torch.rand(3000).sort(descending=True)[0],
        labels=torch.randint(0, 3, (3000,)),
    )
    survivors = []
    for label in range(3):
        of_class = (results.labels == label).nonzero().flatten()
        survivors.append(of_class[nms(results.bboxes[of_class], results.scores[of_class], 0.5, 0)])
    expected = torch.cat(survivors).sort()[0]
    assert 10 < len(expected) < 300
    scores = torch.zeros(3000, 3)
    scores[range(3000), results.labels] = results.scores
    nms_cfg = dict(type='nms', iou_threshold=0.5)
    found = build_head()._suppress(scores.flatten(), results.bboxes, 3000, nms_cfg, max_per_img)
    assert torch.equal(found.scores, results.scores[expected][: max_per_img if max_per_img > 0 else None])


def test_soft_nms_scores_are_taken_over():
    """The operator is one of those that need compiled mmcv; the error says so."""
    from mixdet.compat.mmcv_ops import has_compiled_ops

    head = build_head(test_cfg=ConfigDict({**TEST_CFG, 'nms': dict(type='soft_nms', iou_threshold=0.3)}))
    scores, deltas = outputs_with({0: [5.0, 0, 0, 0], 108: [4.0, 0, 0, 0]})
    if has_compiled_ops():
        assert len(head.predict_by_feat(scores, deltas, batch_img_metas=METAS)[0])
    else:
        with pytest.raises(NotImplementedError, match="'softnms' needs an mmcv with compiled operators"):
            head.predict_by_feat(scores, deltas, batch_img_metas=METAS)


def test_softmax_needs_a_background():
    with pytest.raises(ValueError, match='background_class=False'):
        build_head(**{**SOFTMAX, 'background_class': False})
