"""Folded batch-norms: right with their stored statistics, wrong with those of a batch.

Whoever freezes a network for inference folds its batch-norms into the convolutions. What is left of one in the weights
has mean 0, variance 1 and the folded bias. A network with such weights computes the right function in evaluation. In
training, where a batch-norm uses the statistics of the batch, its first step computes another one, and the pretrained
weights are worth little. Measuring the mean and variance of what such a layer is given, and changing its scale and
shift so that it computes the same with them, makes both agree.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mixdet.layers.modes import evaluation_mode

MEAN_TOLERANCE = 1e-6  # of a mean of 0; that of a trained layer is not so small in every channel
LARGEST_EPS = 0.02  # larger than any eps in use, by which a folded scale and variance may differ from 1
PARTS = ('running_mean', 'running_var', 'weight', 'bias')


def folded_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The folded batch-norms of ``model`` by name; not those that have never been trained."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        and all(getattr(module, part) is not None for part in PARTS)
        and _is_folded(*(getattr(module, part).detach() for part in PARTS))
    }


def _is_folded(mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether the mean is 0 and the variance 1 (up to eps) in every channel, though the layer has been trained."""
    if mean.is_meta or not mean.numel():
        return False
    mean, var, weight, bias = (tensor.double() for tensor in (mean, var, weight, bias))
    if mean.abs().max() > MEAN_TOLERANCE or (var - 1).abs().max() > LARGEST_EPS or var.max() - var.min() > 1e-6:
        return False
    if bias.abs().max() > 0 or weight.max() - weight.min() > 1e-6:
        return True
    # no bias and one scale for all: as a layer is initialised, unless the scale undoes eps
    eps = weight.square().max() - var.max()
    return bool(1e-7 < eps <= LARGEST_EPS)


class _Moments:
    """Mean and variance of each channel of all tensors (N, C, ...) that it is given; in float64 on their device."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.empty(0)
        self.var = torch.empty(0)

    def add(self, x: Tensor) -> None:
        """Take the values of ``x`` into account."""
        values = x.detach().float().transpose(0, 1).flatten(1)
        count = values.shape[1]
        if not count:
            return
        var, mean = (moment.cpu().double() for moment in torch.var_mean(values, dim=1, correction=0))
        if not self.count:
            self.count, self.mean, self.var = count, mean, var
            return
        total = self.count + count
        difference = mean - self.mean
        self.var = (self.count * self.var + count * var) / total + difference.square() * self.count * count / total**2
        self.mean = self.mean + difference * count / total
        self.count = total


def restore_statistics(model: nn.Module, run: Callable[[], Any]) -> list[str]:
    """Give every folded batch-norm of ``model`` the statistics of its input; the network computes the same as before.

    With the measured mean m and variance v of a channel, its scale w' = w sqrt((v + eps) / (var + eps)) and shift
    b' = b + w (m - mean) / sqrt(var + eps) leave the layer's function as it was. A layer's input depends on earlier
    layers alone, whose functions stay, so that one pass over the images suffices for all of them.

    Args:
        model: network, changed in place; one layer that is called several times gets the statistics of all calls.
        run: calls the network on typical images; it is in evaluation mode and needs no gradient.

    Returns:
        The names of the batch-norms that were changed: of those that are folded the ones that ran.
    """
    norms = folded_norms(model)
    moments = {name: _Moments() for name in norms}
    handles = [
        norm.register_forward_pre_hook(lambda _, inputs, found=moments[name]: found.add(inputs[0]))
        for name, norm in norms.items()
    ]
    try:
        with torch.no_grad(), evaluation_mode(model):
            run()
    finally:
        for handle in handles:
            handle.remove()
    changed = [name for name in norms if moments[name].count and _is_finite(moments[name])]
    for name in changed:
        _set_statistics(norms[name], moments[name])
    return changed


def _is_finite(moments: _Moments) -> bool:
    return all(bool(part.isfinite().all()) for part in (moments.mean, moments.var))


def _set_statistics(norm: _BatchNorm, moments: _Moments) -> None:
    """Give ``norm`` these statistics, and the scale and shift with which it computes the same as before."""
    mean, var, weight, bias = (getattr(norm, part) for part in PARTS)
    scale = weight.detach().cpu().double() / (var.cpu().double() + norm.eps).sqrt()
    new_mean, new_var = moments.mean.to(mean.dtype), moments.var.to(var.dtype)  # as they are stored, rounded
    new_bias = bias.detach().cpu().double() + scale * (new_mean.double() - mean.cpu().double())
    with torch.no_grad():
        weight.copy_(scale * (new_var.double() + norm.eps).sqrt())
        bias.copy_(new_bias)
        mean.copy_(new_mean)
        var.copy_(new_var)
