"""Parameters and multiply-adds, counted from the layers that run."""

import math
from typing import NamedTuple

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn


class Complexity(NamedTuple):
    """``params``: every parameter. ``macs``: multiply-adds of convolutions and linear layers for one image."""

    params: int
    macs: int


def count_complexity(model: nn.Module, input_size: tuple[int, int] = (320, 320)) -> Complexity:
    """Count ``model`` on one image of ``input_size`` (height, width), px.

    A convolution's multiply-adds are its output elements times its weights per output channel; batch-norm, activations
    and additions are not counted. A layer that runs twice counts twice, one that does not run not at all.

    ``model`` may be a plain module or a detector of MMDetection, whose raw forward (``mode='tensor'``) is run.
    """
    macs = 0

    def add(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Linear):
            macs += output.numel() * module.in_features
        else:
            macs += output.numel() * math.prod(module.weight.shape[1:])

    hooks = [
        module.register_forward_hook(add) for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    training = [(module, module.training) for module in model.modules()]
    parameter = next(model.parameters())
    image = torch.zeros(1, 3, *input_size, device=parameter.device, dtype=parameter.dtype)
    try:
        with torch.no_grad():
            model.eval()
            model(image, mode='tensor') if isinstance(model, BaseModel) else model(image)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training:
            module.training = mode
    return Complexity(sum(p.numel() for p in model.parameters()), macs)
