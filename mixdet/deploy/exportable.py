"""SSDLite as one tensor program: network, decoding and NMS with shapes that do not depend on the image."""

import functools
import itertools
import math
from typing import Any, Optional

import torch
from mmcv.ops import nms
from mmdet.models import BaseDetector
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import Tensor, nn

from mixdet.errors import UserError
from mixdet.ssdlite.head import SSDLiteHead

NMS_STEPS = 'steps'  # tensor operations, one detection at a time, for any runtime
NMS_ONNX = 'onnx'  # ONNX's NonMaxSuppression


@functools.cache
def nms_mask_operator() -> Any:
    """:func:`nms_mask` as PyTorch's operator ``mixdet::nms_mask``, registered by the first call; needs PyTorch 2.4."""
    operator = torch.library.custom_op('mixdet::nms_mask', nms_mask, mutates_args=())
    operator.register_fake(lambda boxes, scores, *limits: torch.empty_like(scores))
    return torch.ops.mixdet.nms_mask.default


def nms_mask(boxes: Tensor, scores: Tensor, iou_threshold: float, score_thr: float, max_per_class: int) -> Tensor:
    """NMS per class of boxes (N, A, 4) with scores (N, C, A): a mask (N, C, A), 1 for what is kept and else 0.

    This gives a fixed shape to ONNX's NonMaxSuppression, whose output has one row per detection.
    """
    mask = torch.zeros_like(scores)
    for image, label in itertools.product(range(scores.size(0)), range(scores.size(1))):
        anchors = (scores[image, label] > score_thr).nonzero().flatten()
        if len(anchors):
            kept = nms(boxes[image, anchors], scores[image, label, anchors], iou_threshold)[1]
            mask[image, label, anchors[kept[:max_per_class]]] = 1
    return mask


def nms_mask_in_onnx(boxes: Any, scores: Any, iou_threshold: float, score_thr: float, max_per_class: int) -> Any:
    """``nms_mask`` in ONNX operators, for the ``custom_translation_table`` of ``torch.onnx.export``."""
    from onnxscript import opset18 as op

    limit = op.Constant(value_int=max_per_class)
    thresholds = op.Constant(value_float=iou_threshold), op.Constant(value_float=score_thr)
    kept = op.NonMaxSuppression(boxes, scores, limit, *thresholds)
    zeros = op.ConstantOfShape(op.Shape(scores))
    ones = op.Expand(op.Constant(value_float=1.0), op.Shape(kept, start=0, end=1))
    return op.ScatterND(zeros, kept, ones)


class ExportableSSDLite(nn.Module):
    """An SSDLite detector that takes normalised RGB images (N, 3, H, W) and returns

    - with NMS, for each image ``max_per_img`` rows, best first: ``boxes`` (N, n, 4) as x1, y1, x2, y2 in px of the
      input, ``scores`` (N, n) and ``labels`` (N, n). A row with score 0 is not a detection: there were fewer, or
      nothing of its box lies in the image;
    - without NMS, ``boxes`` (N, A, 4) and ``scores`` (N, A, classes) of all anchors. The boxes are not clipped to the
      image, as NMS compares whole ones.

    NMS is exact, and sees the same candidates as in ``SSDLiteHead.predict_by_feat``.

    Args:
        detector: the trained detector; its test_cfg sets thresholds and limits.
        input_size: height and width, px.
        nms: ``NMS_STEPS``, ``NMS_ONNX`` or None.

    Raises:
        UserError: if the detector has another head, box coder or kind of NMS.
    """

    means: Tensor
    stds: Tensor
    priors: Tensor

    def __init__(self, detector: BaseDetector, input_size: tuple[int, int], nms: Optional[str]) -> None:
        super().__init__()
        head = getattr(detector, 'bbox_head', None)
        if not isinstance(head, SSDLiteHead) or type(head.bbox_coder) is not DeltaXYWHBBoxCoder:
            raise UserError('export is for detectors with mixdet.SSDLiteHead and DeltaXYWHBBoxCoder')
        cfg = detector.test_cfg
        if nms and cfg.nms.get('type', 'nms') != 'nms':
            raise UserError(f"test_cfg.nms.type={cfg.nms.type!r}: only 'nms' can be exported; or use --no-nms")
        self.backbone, self.neck, self.head = detector.backbone, detector.neck, head
        self.input_size, self.nms = input_size, nms
        self.score_thr, self.iou_threshold = float(cfg.get('score_thr', 0)), float(cfg.nms.iou_threshold)
        self.max_per_img = int(cfg.max_per_img)
        self.max_log_ratio = abs(math.log(16 / 1000))  # DeltaXYWHBBoxCoder's wh_ratio_clip
        self.register_buffer('means', torch.tensor(head.bbox_coder.means), persistent=False)
        self.register_buffer('stds', torch.tensor(head.bbox_coder.stds), persistent=False)
        with torch.no_grad():
            outputs = head(self.neck(self.backbone(torch.zeros(1, 3, *input_size))))[0]
        priors = torch.cat(head._priors(outputs, [dict(batch_input_shape=input_size)]))
        self.register_buffer('priors', priors, persistent=False)
        # Without nms_pre the head adds candidates until NMS leaves enough. Their number is fixed here, at as many as it
        # takes in its second attempt.
        nms_pre = cfg.get('nms_pre', -1)
        candidates = nms_pre if nms_pre > 0 else 40 * self.max_per_img
        self.candidates = min(candidates, len(priors) * head.num_classes)

    def halve(self) -> None:
        """Put the network, but not decoding and NMS, into half precision."""
        for part in (self.backbone, self.neck, self.head):
            part.half()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Boxes, scores and, with NMS, labels, see the class."""
        images = images.to(next(self.head.parameters()).dtype)
        cls_scores, deltas = self.head(self.neck(self.backbone(images)))
        scores = self.head._flatten(cls_scores, self.head.cls_out_channels)
        scores = scores.sigmoid() if self.head.use_sigmoid_cls else scores.softmax(-1)
        scores = scores[..., : self.head.num_classes]
        boxes = self._decode(self.head._flatten(deltas, 4))
        if self.nms is None:
            return boxes, scores
        if self.nms == NMS_ONNX:
            boxes, scores, labels = self._onnx_nms(boxes, scores)
        else:
            boxes, scores, labels = self._stepwise_nms(boxes, scores)
        boxes = self._clip(boxes)
        filled = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        return boxes, scores * filled, labels

    def _decode(self, deltas: Tensor) -> Tensor:
        """Boxes (N, A, 4) from deltas (N, A, 4), as ``DeltaXYWHBBoxCoder`` without clipping to the image."""
        deltas = deltas * self.stds + self.means
        sides = self.priors[:, 2:] - self.priors[:, :2]
        centres = (self.priors[:, :2] + self.priors[:, 2:]) / 2 + sides * deltas[..., :2]
        half = sides * deltas[..., 2:].clamp(-self.max_log_ratio, self.max_log_ratio).exp() / 2
        return torch.cat([centres - half, centres + half], -1)

    def _clip(self, boxes: Tensor) -> Tensor:
        """Boxes (N, n, 4) clipped to the image."""
        height, width = self.input_size
        x = boxes[..., 0::2].clamp(0, width)
        y = boxes[..., 1::2].clamp(0, height)
        return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], -1)

    def _stepwise_nms(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Greedy NMS in ``max_per_img`` steps: take the best candidate, drop those of its class that overlap it."""
        classes = scores.size(-1)
        scores, index = scores.flatten(1).topk(self.candidates)
        remaining = scores * (scores > self.score_thr)
        labels = index % classes
        boxes = boxes.gather(1, (index // classes)[..., None].expand(-1, -1, 4))
        areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        positions = torch.arange(self.candidates, device=scores.device)
        picked = []
        for _ in range(self.max_per_img):
            best, at = remaining.max(1, keepdim=True)
            box, label = boxes.gather(1, at[..., None].expand(-1, -1, 4)), labels.gather(1, at)
            sides = torch.minimum(boxes[..., 2:], box[..., 2:]) - torch.maximum(boxes[..., :2], box[..., :2])
            overlap = sides.clamp(min=0).prod(-1)
            iou = overlap / (areas + areas.gather(1, at) - overlap)
            dropped = ((iou > self.iou_threshold) & (labels == label)) | (positions == at)
            remaining = remaining * ~dropped
            picked.append((box, best, label))
        boxes, scores, labels = (torch.cat(parts, 1) for parts in zip(*picked))
        return boxes, scores, labels

    def _onnx_nms(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ONNX's NonMaxSuppression of the same candidates."""
        anchors, classes = scores.shape[1:]
        flat = scores.flatten(1)
        lowest = flat.topk(self.candidates).values[:, -1:]
        flat = flat * (flat >= lowest)
        by_class = flat.unflatten(1, (anchors, classes)).transpose(1, 2)
        limits = (self.iou_threshold, self.score_thr, self.max_per_img)
        mask = nms_mask_operator()(boxes, by_class, *limits)
        scores, index = (by_class * mask).flatten(1).topk(self.max_per_img)
        boxes = boxes.gather(1, (index % anchors)[..., None].expand(-1, -1, 4))
        return boxes, scores, index // anchors
