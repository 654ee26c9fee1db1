"""Parameters and multiply-adds, counted from the layers that run."""

import math
from typing import NamedTuple, Union

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from mixdet.layers.modes import evaluation_mode

Layer = Union[_ConvNd, nn.Linear]


class LayerCost(NamedTuple):
    """One convolution or linear layer.

    ``kind``: its class. ``weights``: their number, without the bias. ``macs``: multiply-adds for one image, over all
    runs of the layer.
    """

    name: str
    kind: str
    weights: int
    macs: int


class Complexity(NamedTuple):
    """What a model costs on one image.

    ``params``: number of parameters. ``macs``: multiply-adds of convolutions and linear layers. ``layers``: those
    that ran, in order. ``notes``: what ``macs`` leaves out, or what depends on the image, one line each.
    """

    params: int
    macs: int
    layers: tuple[LayerCost, ...]
    notes: tuple[str, ...] = ()


def count_complexity(model: nn.Module, input_size: tuple[int, int] = (320, 320)) -> Complexity:
    """Count ``model`` on one image of ``input_size`` (height, width), px.

    A convolution's multiply-adds are its output elements times its weights per output channel; batch-norm, activations
    and additions are not counted. A layer that runs twice counts twice, a layer that does not run is not counted.

    ``model`` may be a plain module or a detector of MMDetection, whose raw forward (``mode='tensor'``) is run.
    """
    macs: dict[Layer, int] = {}

    def add(module: Layer, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        per_element = module.in_features if isinstance(module, nn.Linear) else math.prod(module.weight.shape[1:])
        elements = inputs[0].numel() if getattr(module, 'transposed', False) else output.numel()
        macs[module] = macs.get(module, 0) + elements * per_element

    counted = (_ConvNd, nn.Linear)
    hooks = [module.register_forward_hook(add) for module in model.modules() if isinstance(module, counted)]
    try:
        with torch.no_grad(), evaluation_mode(model):
            run_network(model, input_size)
    finally:
        for hook in hooks:
            hook.remove()
    names = {module: name for name, module in model.named_modules()}
    layers = tuple(
        LayerCost(names[module], type(module).__name__, module.weight.numel(), cost) for module, cost in macs.items()
    )
    params = sum(parameter.numel() for parameter in model.parameters())
    return Complexity(params, sum(macs.values()), layers, tuple(_notes(model)))


def run_network(model: nn.Module, input_size: tuple[int, int]) -> None:
    """Run a plain module, or the raw forward of a detector of MMDetection, on one black image (height, width)."""
    parameter = next(model.parameters())
    image = torch.zeros(1, 3, *input_size, device=parameter.device, dtype=parameter.dtype)
    if not isinstance(model, BaseModel):
        model(image)
        return
    from mmdet.structures import DetDataSample

    size = dict(img_shape=input_size, ori_shape=input_size, pad_shape=input_size, batch_input_shape=input_size)
    sample = DetDataSample(metainfo=dict(size, scale_factor=(1.0, 1.0), img_id=0, img_path=''))
    model(image, [sample], mode='tensor')


def _notes(model: nn.Module) -> list[str]:
    """What the count leaves out: modules with weights of their own that are no convolution, linear layer or norm."""
    notes = []
    if hasattr(model, 'roi_head'):
        notes.append('roi_head depends on the image: counted for the proposals that a black image gives')
    known = (_ConvNd, nn.Linear, nn.Embedding)  # the weights of norms and of PReLU are vectors
    others: dict[str, int] = {}
    for module in model.modules():
        own = [parameter for parameter in module.parameters(recurse=False) if parameter.dim() > 1]
        if own and not isinstance(module, known):
            others[type(module).__name__] = others.get(type(module).__name__, 0) + 1
    notes += [f'not counted: the multiply-adds of {count} {name}' for name, count in others.items()]
    return notes
