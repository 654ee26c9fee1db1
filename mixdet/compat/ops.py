"""``nms`` and ``roi_align`` with the signatures and results of mmcv's extension, in NumPy and PyTorch."""

import numpy as np
import torch
from torch import Tensor

BLOCK = 256  # boxes that nms compares at once


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that greedy non-maximum suppression keeps, best score first.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2, px.
        scores: (N,).
        iou_threshold: a box whose IoU with a better one is larger is dropped.
        offset: added to widths and heights, 0 or 1.

    Boxes are first split where their x-extents leave a gap: ``batched_nms`` moves classes apart, so each class is
    suppressed by itself instead of all in one N x N matrix.
    """
    if not len(boxes):
        return boxes.new_zeros(0, dtype=torch.long)
    order = scores.sort(0, descending=True)[1].cpu().numpy()  # not stable, to break ties as mmcv does
    ranked = boxes.detach().float().cpu().numpy()[order].T  # (4, N)
    by_x1 = np.argsort(ranked[0], kind='stable')
    reach = np.maximum.accumulate(ranked[2, by_x1] + offset)
    gaps = np.flatnonzero(ranked[0, by_x1[1:]] > reach[:-1]) + 1
    keep = np.ones(len(order), dtype=bool)
    for part in np.split(by_x1, gaps):
        if len(part) > 1:
            part = np.sort(part)  # ranks, best first
            keep[part] = _suppress(ranked[:, part], iou_threshold, offset)
    return torch.from_numpy(order[keep]).to(boxes.device)


def _suppress(boxes: np.ndarray, iou_threshold: float, offset: int) -> np.ndarray:
    """Which of ``boxes`` (4, n), best first, are kept: a boolean mask (n,). Works on a block of boxes at a time."""
    count = boxes.shape[1]
    alive = np.ones(count, dtype=bool)
    for start in range(0, count, BLOCK):
        block = np.arange(start, min(start + BLOCK, count))
        block = block[alive[block]]
        overlaps = np.triu(_iou(boxes[:, block], boxes[:, block], offset) > iou_threshold, 1)
        for i in np.flatnonzero(overlaps.any(1)):
            if alive[block[i]]:
                alive[block[overlaps[i]]] = False
        kept = block[alive[block]]
        rest = np.arange(start + BLOCK, count)
        rest = rest[alive[rest]]
        if len(kept) and len(rest):
            alive[rest] = ~(_iou(boxes[:, kept], boxes[:, rest], offset) > iou_threshold).any(0)
    return alive


def _iou(a: np.ndarray, b: np.ndarray, offset: int) -> np.ndarray:
    """IoU (n, m) of boxes (4, n) and (4, m)."""
    offset = np.float32(offset)
    width, height = (
        np.maximum(np.minimum(a[i + 2, :, None], b[i + 2]) - np.maximum(a[i, :, None], b[i]) + offset, 0)
        for i in (0, 1)
    )
    intersection = width * height
    area_a, area_b = ((x[2] - x[0] + offset) * (x[3] - x[1] + offset) for x in (a, b))
    with np.errstate(divide='ignore', invalid='ignore'):
        return intersection / (area_a[:, None] + area_b - intersection)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output`` (R, C, h, w) from ``input`` (N, C, H, W) and ``rois`` (R, 5): image index, x1, y1, x2, y2.

    ``pool_mode`` is 1 for the mean of the sampled points; 0, for their maximum, raises NotImplementedError.
    """
    size = (aligned_height, aligned_width)
    output.copy_(_roi_align(input, rois, size, spatial_scale, sampling_ratio, pool_mode, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``grad_input`` (N, C, H, W). RoIAlign is linear in its input, whose values are therefore not needed."""
    size = (aligned_height, aligned_width)
    with torch.enable_grad():
        features = torch.zeros_like(grad_input, requires_grad=True)
        pooled = _roi_align(features, rois, size, spatial_scale, sampling_ratio, pool_mode, aligned)
        grad_input.copy_(torch.autograd.grad(pooled, features, grad_output)[0])


def _roi_align(
    features: Tensor,
    rois: Tensor,
    size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> Tensor:
    if pool_mode != 1:
        raise NotImplementedError("roi_align with pool_mode='max' needs an mmcv with compiled operators")
    boxes = rois[:, 1:].float() * spatial_scale - (0.5 if aligned else 0.0)
    sides = boxes[:, 2:] - boxes[:, :2]
    if not aligned:
        sides = sides.clamp(min=1.0)
    bins = sides / sides.new_tensor([size[1], size[0]])
    # points per bin and axis; with sampling_ratio 0, one per feature pixel that a bin spans
    points = torch.full_like(bins, sampling_ratio) if sampling_ratio > 0 else bins.ceil()
    output = features.new_zeros(len(rois), features.size(1), *size)
    for nx, ny in points.long().unique(dim=0).tolist():
        if nx < 1 or ny < 1:
            continue  # an empty RoI has no points: its features are zero
        group = ((points[:, 0] == nx) & (points[:, 1] == ny)).nonzero().flatten()
        x = _sample_points(boxes[group, 0], bins[group, 0], size[1], nx)
        y = _sample_points(boxes[group, 1], bins[group, 1], size[0], ny)
        sampled = _bilinear(features, rois[group, 0].long(), y, x)
        pooled = sampled.unflatten(-2, (size[0], ny)).unflatten(-1, (size[1], nx)).mean((-3, -1))
        output = output.index_copy(0, group, pooled.to(output.dtype))
    return output


def _sample_points(start: Tensor, bins: Tensor, count: int, points: int) -> Tensor:
    """Coordinates (R, count * points): ``points`` evenly in each of ``count`` bins from ``start``."""
    steps = (torch.arange(count * points, device=start.device) + 0.5) / points
    return start[:, None] + bins[:, None] * steps


def _bilinear(features: Tensor, images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Features (R, C, Y, X) at rows ``y`` (R, Y) and columns ``x`` (R, X); zero beyond one pixel outside."""
    height, width = features.shape[-2:]
    result = features.new_zeros(())
    for row, row_weight in _neighbours(y, height):
        for column, column_weight in _neighbours(x, width):
            values = features.permute(0, 2, 3, 1)[images[:, None, None], row[:, :, None], column[:, None, :]]
            weight = row_weight[:, :, None, None] * column_weight[:, None, :, None]
            result = result + values * weight.to(values.dtype)
    return result.permute(0, 3, 1, 2)


def _neighbours(position: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """The two pixels around each position on an axis of ``size`` pixels, with their weights."""
    inside = (position >= -1) & (position <= size)
    position = position.clamp(0, size - 1)
    low = position.floor().clamp(max=max(size - 2, 0)) if size > 1 else torch.zeros_like(position)
    fraction = position - low
    low = low.long()
    return [(low, (1 - fraction) * inside), ((low + 1).clamp(max=size - 1), fraction * inside)]
