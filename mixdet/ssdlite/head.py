"""SSDLite's class and box branches, their losses and their predictions."""

from collections.abc import Sequence
from typing import Any, Optional, Union

import torch
import torch.nn.functional as F
from mmcv.ops import batched_nms
from mmdet.models.dense_heads import AnchorHead
from mmengine.model import ModuleList, Sequential, bias_init_with_prob
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mixdet.layers import MixConvNormAct, PointwiseConv2d
from mixdet.registry import MODELS
from mixdet.ssdlite.targets import find_targets

BBOX_CODER = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2])


@MODELS.register_module()
class SSDLiteHead(AnchorHead):
    """SSDLite's head: on each level a depthwise 3x3 and a 1x1 convolution for classes, and two more for boxes.

    MMDetection's own ``SSDHead`` cannot predict (its ``predict_by_feat`` reads a ``loss_cls`` that it lacks), ties the
    anchors to fixed strides and clips boxes before NMS; this one follows the TF Object Detection API.

    Three kinds of classification:

    - softmax over classes and background: ``loss_cls=dict(type='CrossEntropyLoss')``, as MMDetection's SSD;
    - sigmoid over classes and background, TensorFlow's: ``loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True)``;
    - sigmoid focal: ``loss_cls=dict(type='FocalLoss', use_sigmoid=True)`` with ``background_class=False``.

    Args:
        num_classes: number of classes, not counting the background.
        in_channels: channels of each level (``SSDLite`` passes the neck's).
        background_class: whether the last output of each anchor is the background.
        anchor_generator, bbox_coder, loss_cls, loss_bbox, reg_decoded_bbox: as in MMDetection's ``AnchorHead``.
        norm_cfg, act_cfg, init_cfg: as everywhere in MMDetection.
        train_cfg: ``assigner``; ``neg_pos_ratio``, hard negatives per positive (None: all negatives count, for focal
            loss), and ``min_negatives``, how many an image has at least; ``allowed_border``, ``pos_weight``.
        test_cfg: ``score_thr``; ``nms_pre``, how many of an image's class scores, the best, enter NMS (-1: all);
            ``nms``; ``max_per_img``.

    Raises:
        ValueError: if softmax lacks its background class, or if ``in_channels`` and the anchor generator differ in the
            number of levels.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        background_class: bool = True,
        anchor_generator: Optional[dict] = None,
        bbox_coder: Optional[dict] = None,
        loss_cls: Optional[dict] = None,
        loss_bbox: Optional[dict] = None,
        norm_cfg: Optional[dict] = None,
        act_cfg: Optional[dict] = None,
        init_cfg: Optional[Union[dict, list]] = None,
        **kwargs: Any,
    ) -> None:
        self.background_class = background_class
        self.norm_cfg = norm_cfg or dict(type='BN', eps=0.001)
        self.act_cfg = act_cfg or dict(type='ReLU6')
        loss_cls = loss_cls or dict(type='CrossEntropyLoss')
        if not background_class and not loss_cls.get('use_sigmoid', False):
            raise ValueError('background_class=False: softmax needs a background class; choose a sigmoid loss_cls')
        super().__init__(
            num_classes,
            in_channels,
            anchor_generator=anchor_generator or dict(type='mixdet.SSDLiteAnchorGenerator'),
            bbox_coder=bbox_coder or BBOX_CODER,
            loss_cls=loss_cls,
            loss_bbox=loss_bbox or dict(type='SmoothL1Loss', beta=1.0),
            init_cfg=init_cfg,
            **kwargs,
        )

    def _init_layers(self) -> None:
        if len(self.in_channels) != self.prior_generator.num_levels:
            raise ValueError(
                f'in_channels={tuple(self.in_channels)}: {len(self.in_channels)} levels, but the anchor generator has '
                f'{self.prior_generator.num_levels}'
            )
        self.cls_out_channels = self.num_classes + int(self.background_class)
        self.num_base_priors = self.prior_generator.num_base_priors
        self.cls_convs = self._branch(self.cls_out_channels)
        self.reg_convs = self._branch(self.bbox_coder.encode_size)

    def _branch(self, outputs_per_anchor: int) -> ModuleList:
        return ModuleList(
            Sequential(
                MixConvNormAct(channels, 3, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg),
                PointwiseConv2d(channels, anchors * outputs_per_anchor),
            )
            for channels, anchors in zip(self.in_channels, self.num_base_priors)
        )

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says; without a background class, scores start at 0.01, as focal loss needs."""
        super().init_weights()
        if not self.background_class:
            for convs in self.cls_convs:
                nn.init.constant_(convs[-1].bias, bias_init_with_prob(0.01))

    def forward(self, feats: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Class scores (N, A_i * classes, H_i, W_i) and box deltas (N, A_i * 4, H_i, W_i) of each level."""
        cls_scores = [conv(feat) for conv, feat in zip(self.cls_convs, feats)]
        bbox_preds = [conv(feat) for conv, feat in zip(self.reg_convs, feats)]
        return cls_scores, bbox_preds

    @staticmethod
    def _flatten(outputs: Sequence[Tensor], size: int) -> Tensor:
        """Outputs of all levels as one float tensor (N, anchors, ``size``)."""
        flat = [out.permute(0, 2, 3, 1).reshape(out.size(0), -1, size) for out in outputs]
        return torch.cat(flat, dim=1).float()

    def _priors(self, outputs: Sequence[Tensor], batch_img_metas: Sequence[dict]) -> list[Tensor]:
        return self.prior_generator.grid_priors(
            [tuple(out.shape[-2:]) for out in outputs],
            image_size=batch_img_metas[0]['batch_input_shape'],
            device=outputs[0].device,
        )

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: Optional[list[InstanceData]] = None,
    ) -> dict[str, Tensor]:
        """``loss_cls`` and ``loss_bbox`` of a batch, each divided by the number of matched anchors.

        An image in which no anchor is matched counts as one anchor, as everywhere in MMDetection.
        """
        priors = self._priors(cls_scores, batch_img_metas)
        labels, label_weights, bbox_targets, bbox_weights, avg_factor = find_targets(
            self, priors, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore
        )
        losses = self._anchor_cls_losses(self._flatten(cls_scores, self.cls_out_channels), labels) * label_weights
        if self.train_cfg.get('neg_pos_ratio') is not None:
            losses = losses * self._positives_and_hard_negatives(losses.detach(), labels)

        deltas = self._flatten(bbox_preds, self.bbox_coder.encode_size).flatten(0, 1)
        if self.reg_decoded_bbox:
            deltas = self.bbox_coder.decode(torch.cat(priors).repeat(len(labels), 1), deltas)
        loss_bbox = self.loss_bbox(
            deltas, bbox_targets.flatten(0, 1), bbox_weights.flatten(0, 1), avg_factor=avg_factor
        )
        return dict(loss_cls=losses.sum() / avg_factor, loss_bbox=loss_bbox)

    def _anchor_cls_losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Classification loss (N, anchors) of each anchor, from scores (N, anchors, classes) and labels."""
        targets = labels.flatten()
        if self.use_sigmoid_cls:
            one_hot = F.one_hot(targets, self.num_classes + 1)
            targets = one_hot[:, : self.cls_out_channels].to(scores.dtype)
        losses = self.loss_cls(scores.flatten(0, 1), targets, reduction_override='none')
        return losses.view(*labels.shape, -1).sum(-1)

    def _positives_and_hard_negatives(self, losses: Tensor, labels: Tensor) -> Tensor:
        """Mask (N, anchors) of all positives and of the negatives with the highest ``losses`` in each image.

        Ignored anchors are labelled as background and have no loss, so they rank last and add nothing if selected.
        """
        positive = labels < self.num_classes
        wanted = positive.sum(1, keepdim=True) * self.train_cfg['neg_pos_ratio']
        wanted = wanted.clamp(min=self.train_cfg.get('min_negatives', 0))
        order = losses.masked_fill(positive, -1).argsort(dim=1, descending=True)
        ranks = torch.empty_like(order)
        ranks.scatter_(1, order, torch.arange(order.size(1), device=order.device).expand_as(order))
        return positive | (ranks < wanted)

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        score_factors: None = None,
        batch_img_metas: Sequence[dict] = (),
        cfg: Optional[dict] = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Detections of each image: ``bboxes`` (n, 4) px, ``scores`` (n), ``labels`` (n), best first.

        As in the TF Object Detection API, NMS runs per class on unclipped boxes; then boxes are clipped to the image
        and empty ones dropped. With ``rescale`` boxes are in px of the original image.
        """
        cfg = self.test_cfg if cfg is None else cfg
        scores = self._flatten(cls_scores, self.cls_out_channels)
        scores = scores.sigmoid() if self.use_sigmoid_cls else scores.softmax(-1)
        deltas = self._flatten(bbox_preds, self.bbox_coder.encode_size)
        priors = torch.cat(self._priors(cls_scores, batch_img_metas))
        return [
            self._predict_image(
                image_scores[:, : self.num_classes],
                self.bbox_coder.decode(priors, image_deltas),
                img_meta,
                cfg,
                rescale,
                with_nms,
            )
            for image_scores, image_deltas, img_meta in zip(scores, deltas, batch_img_metas)
        ]

    def _predict_image(
        self, scores: Tensor, bboxes: Tensor, img_meta: dict, cfg: dict, rescale: bool, with_nms: bool
    ) -> InstanceData:
        # NaN is dropped too: it is above no threshold
        scores = scores.where(scores > cfg.get('score_thr', 0), scores.new_tensor(-torch.inf)).flatten()
        number = int((scores > -torch.inf).sum())
        if cfg.get('nms_pre', -1) > 0:
            number = min(number, cfg['nms_pre'])
        if with_nms and number:
            results = self._suppress(scores, bboxes, number, cfg['nms'], cfg.get('max_per_img', -1))
        else:
            results = self._best(scores, bboxes, number)
        height, width = img_meta['img_shape'][:2]
        bboxes = results.bboxes.clone()
        bboxes[:, 0::2].clamp_(0, width)
        bboxes[:, 1::2].clamp_(0, height)
        not_empty = (bboxes[:, 2] > bboxes[:, 0]) & (bboxes[:, 3] > bboxes[:, 1])
        if rescale:
            bboxes = bboxes / bboxes.new_tensor(img_meta['scale_factor']).repeat(2)
        results.bboxes = bboxes
        return results[not_empty]

    def _best(self, scores: Tensor, bboxes: Tensor, count: int) -> InstanceData:
        """The ``count`` best, sorted, of ``scores`` (anchors * classes), with the boxes of their anchors."""
        scores, index = scores.topk(count)
        return InstanceData(bboxes=bboxes[index // self.num_classes], scores=scores, labels=index % self.num_classes)

    def _suppress(self, scores: Tensor, bboxes: Tensor, number: int, nms: dict, max_per_img: int) -> InstanceData:
        """NMS per class of the ``number`` best scores; of what it keeps, the ``max_per_img`` best (-1: all), sorted.

        Whether greedy NMS suppresses a box depends only on better ones, so the best candidates go first, and more only
        if too few are kept: of the 160,000 class scores of an image the first thousand mostly suffice.
        """
        limit = max_per_img if max_per_img > 0 else number
        # soft-NMS changes scores and so needs all candidates
        count = min(10 * limit, number) if nms.get('type', 'nms') == 'nms' else number
        while True:
            candidates = self._best(scores, bboxes, count)
            # batched_nms shifts each class by the largest coordinate, which separates them only if none is negative
            shifted = candidates.bboxes - candidates.bboxes.min()
            dets, keep = batched_nms(shifted, candidates.scores, candidates.labels, nms)
            if len(keep) >= limit or count == number:
                break
            count = min(4 * count, number)
        kept = candidates[keep]
        kept.scores = dets[:, -1]
        return kept[:limit]
