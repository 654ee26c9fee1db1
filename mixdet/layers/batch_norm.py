"""Batch-norm in training with the activation after it, as one operator for the CPU (``csrc/batch_norm.h``)."""

import math
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixdet.layers import native
from mixdet.layers.implementations import exporting, has_hooks, is_channels_last, is_compiling, is_observed

# the range that each activation lets pass
CLAMPS: dict[type, tuple[float, float]] = {nn.ReLU: (0.0, math.inf), nn.ReLU6: (0.0, 6.0)}


def norm_act(x: Tensor, norm: nn.Module, act: Optional[nn.Module]) -> Tensor:
    """``act(norm(x))``, by one operator in place of two where that gives the same and is faster.

    That is a batch-norm in training on a CPU, with ReLU, ReLU6 or no activation, for images (N, C, H, W) of float32 in
    channels_last. Values and gradients are PyTorch's up to rounding.
    """
    if not _is_covered(x, norm, act):
        x = norm(x)
        return x if act is None else act(x)
    limits = CLAMPS.get(type(act), (-math.inf, math.inf))
    out, statistics = _BatchNormClamp.apply(x, norm.weight, norm.bias, norm.eps, *limits)
    _track(norm, statistics, x.numel() // x.shape[1])
    return out


def _is_covered(x: Tensor, norm: nn.Module, act: Optional[nn.Module]) -> bool:
    return (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and (act is None or type(act) in CLAMPS)
        and isinstance(x, Tensor)
        and x.is_cpu
        and x.dtype == norm.weight.dtype == norm.bias.dtype == torch.float32
        and not is_compiling()
        and not exporting()
        and not is_observed()
        and not has_hooks(norm)
        and not (act is not None and has_hooks(act))
        and is_channels_last(x)
        and x.numel() > x.shape[1]
        and native.available()
    )


def _track(norm: Any, statistics: Tensor, count: int) -> None:
    """Update the running statistics of a batch-norm, if it has some, as ``nn.BatchNorm2d`` does."""
    if not norm.track_running_stats:
        return
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.mul_(1 - momentum).add_(statistics[0], alpha=momentum)
        norm.running_var.mul_(1 - momentum).add_(statistics[1], alpha=momentum * count / (count - 1))


class _BatchNormClamp(torch.autograd.Function):
    """Batch-norm with the statistics of the batch, which it returns too, then a clamp to low..high."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, *options: float) -> tuple[Tensor, Tensor]:
        out, statistics = torch.ops.mixdet.batch_norm_clamp(x, weight, bias, *options)
        ctx.save_for_backward(x, weight, bias, statistics)
        ctx.options = options
        ctx.mark_non_differentiable(statistics)
        return out, statistics

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Optional[Tensor], ...]:
        x, weight, bias, statistics = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient must have one itself
            grads = _differentiable(grad, (x, weight, bias), ctx.needs_input_grad[:3], *ctx.options)
        else:
            grad = grad.contiguous(memory_format=torch.channels_last)
            grads = torch.ops.mixdet.batch_norm_clamp_backward(grad, x, weight, statistics, *ctx.options)
        return (*grads, None, None, None)


def _differentiable(
    grad: Tensor, inputs: tuple[Tensor, ...], needed: tuple[bool, ...], eps: float, low: float, high: float
) -> list[Optional[Tensor]]:
    x, weight, bias = inputs
    out = F.batch_norm(x, None, None, weight, bias, True, 0.0, eps).clamp(low, high)
    wanted = [each for each, need in zip(inputs, needed) if need]
    grads = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    return [next(grads) if need else None for need in needed]
