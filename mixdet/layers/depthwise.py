"""MixConv as a drop-in: replaces depthwise convolutions in any network, keeping their weights by growing kernels."""

import fnmatch
from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple, Optional, Union

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mixdet.layers.mixconv import KernelSizes, MixConv2d, Split, parse_kernel_sizes
from mixdet.layers.modes import evaluation_mode

Depthwise = Union[nn.Conv2d, MixConv2d]

# (module, class) of plain convolutions, and classes that pad as TensorFlow does (ours, timm's, mmcv's)
PLAIN_CONVS = {('torch.nn.modules.conv', 'Conv2d'), ('mmcv.cnn.bricks.wrappers', 'Conv2d')}
SAME_CONVS = {'Conv2dSame', 'Conv2dAdaptivePadding'}


class Where(NamedTuple):
    """Which depthwise convolutions to replace: those that match every field that is not None.

    ``name``: pattern(s) of the dotted module name (``layer4.*``). ``stride``: the layer's own stride(s). ``stage``:
    number(s) of the stage that the layer's output belongs to, as in MMDetection: 0-3 for stride 4-32, -1 for stride 2.
    ``resolution``: height(s) of the output in px for images of ``input_size`` px; any container, such as a range.

    If ``stage`` or ``resolution`` is given, the network is run once on a black image of ``input_size`` px.
    """

    name: Optional[Union[str, Sequence[str]]] = None
    stride: Optional[Union[int, Container[int]]] = None
    stage: Optional[Union[int, Container[int]]] = None
    resolution: Optional[Union[int, Container[int]]] = None
    input_size: int = 224


def grow(weights: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """Kernels (N, 1, h, w) centred in zeros of ``kernel_size``; with centred padding they compute the same.

    Raises ValueError if ``kernel_size`` is smaller than the kernels.
    """
    margins = [(to - size) // 2 for size, to in zip(weights.shape[-2:], kernel_size)]
    if min(margins) < 0:
        raise ValueError(f'a {tuple(weights.shape[-2:])} kernel does not fit into {kernel_size}')
    return nn.functional.pad(weights, (margins[1], margins[1], margins[0], margins[0]))


def crop(weights: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """The middle of kernels (N, 1, h, w), cut to ``kernel_size`` along each axis that is longer than that."""
    for axis, size in zip((-2, -1), kernel_size):
        excess = max(weights.shape[axis] - size, 0)
        weights = weights.narrow(axis, excess // 2, weights.shape[axis] - excess)
    return weights


def depthwise_layers(module: nn.Module) -> dict[str, Depthwise]:
    """The depthwise convolutions in ``module`` by dotted name; a ``MixConv2d`` is one, not the convolutions in it."""
    found: dict[str, Depthwise] = {}
    for name, layer in module.named_modules():
        inside = any(isinstance(outer, MixConv2d) and name.startswith(f'{above}.') for above, outer in found.items())
        vanilla = isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
        if isinstance(layer, (nn.Conv2d, MixConv2d)) and not inside and (vanilla or isinstance(layer, MixConv2d)):
            found[name] = layer
    return found


def mix_depthwise(
    module: nn.Module,
    kernel_sizes: KernelSizes = (3, 5, 7),
    split: Split = 'equal',
    where: Optional[Union[dict, Where]] = None,
    allow_crop: bool = False,
) -> list[str]:
    """Replace the depthwise convolutions of ``module`` by :class:`MixConv2d`, in place.

    Weights are kept: each kernel is centred in the zeros of a larger one, so the network still computes the same, and
    training continues from there with the new taps. Strides, dilation, bias, padding (TensorFlow's too), precision,
    device and ``requires_grad`` stay as they are.

    Args:
        module: any network.
        kernel_sizes: kernel sizes of the groups, see ``MixConv2d``.
        split: how the channels are split into groups, see :func:`split_channels`.
        where: which layers to replace, see :class:`Where`; None for all.
        allow_crop: cut kernels larger than those of their group to the middle, which changes the function; without it
            they are an error.

    Returns:
        The dotted names of the replaced layers.

    Raises:
        ValueError: if there is no such layer, or one cannot be replaced; then nothing is changed.
    """
    parse_kernel_sizes(kernel_sizes)
    layers = depthwise_layers(module)
    if not layers:
        raise ValueError(f'{type(module).__name__} has no depthwise convolution: there is nothing to replace')
    if '' in layers:
        raise ValueError(f'{type(module).__name__} is itself a convolution: pass the network that contains it')
    chosen = _select(module, layers, _where(where))
    if not chosen:
        raise ValueError(
            f'where={where} selects none of the {len(layers)} depthwise convolutions: {_shortened(layers)}'
        )
    mixed: dict[Optional[nn.Module], MixConv2d] = {}
    for name in chosen:
        try:
            mixed[layers[name]] = _mixed(layers[name], kernel_sizes, split, allow_crop)
        except ValueError as error:
            raise ValueError(f'layer {name}: {error}') from None
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):  # named_children yields a shared layer once only
            if child in mixed:
                setattr(parent, name, mixed[child])
    return chosen


def _where(where: Optional[Union[dict, Where]]) -> Where:
    if isinstance(where, dict):
        unknown = sorted(set(where) - set(Where._fields))
        if unknown:
            raise ValueError(f'where={where}: unknown {", ".join(unknown)}; known are {", ".join(Where._fields)}')
        return Where(**where)
    return where or Where()


def _shortened(names: Iterable[str]) -> str:
    names = list(names)
    return ', '.join(names[:4]) + (' ...' if len(names) > 4 else '')


def _select(module: nn.Module, layers: dict[str, Depthwise], where: Where) -> list[str]:
    """Names of the layers that match ``where``."""
    patterns = [where.name] if isinstance(where.name, str) else where.name
    heights: dict[str, int] = {}
    if where.stage is not None or where.resolution is not None:
        heights = _output_heights(module, layers, where.input_size)

    def matches(name: str, layer: Depthwise) -> bool:
        if patterns is not None and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            return False
        if not _matches(max(layer.stride), where.stride):
            return False
        if not heights:
            return True
        height = heights.get(name, 0)  # 0: the layer does not run
        stage = round(where.input_size / height).bit_length() - 3 if height else None
        return _matches(stage, where.stage) and _matches(height, where.resolution)

    return [name for name, layer in layers.items() if matches(name, layer)]


def _matches(value: Any, wanted: Any) -> bool:
    return wanted is None or (value in wanted if isinstance(wanted, Container) else value == wanted)


def _output_heights(module: nn.Module, layers: dict[str, Depthwise], input_size: int) -> dict[str, int]:
    """Height (px) of the output of each layer that runs for an image of ``input_size`` px."""
    names: dict[nn.Module, str] = {layer: name for name, layer in layers.items()}
    heights = {}

    def record(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        heights[names[layer]] = output.shape[-2]

    hooks = [layer.register_forward_hook(record) for layer in names]
    parameter = next(module.parameters())
    image = torch.zeros(1, 3, input_size, input_size, device=parameter.device, dtype=parameter.dtype)
    try:
        with torch.no_grad(), evaluation_mode(module):
            module(image)
    except Exception as error:  # any network can be passed, so anything can happen
        raise ValueError(
            f'where: stage and resolution need a network that takes images (N, 3, H, W), but {type(module).__name__} '
            f'fails on one of {input_size} px ({type(error).__name__}); pass its backbone'
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return heights


def _mixed(layer: Depthwise, kernel_sizes: KernelSizes, split: Split, allow_crop: bool) -> MixConv2d:
    """A MixConv2d that computes what ``layer`` computes."""
    sources = layer.convs if isinstance(layer, MixConv2d) else [layer]
    _check(layer, sources)
    first = sources[0]
    mixed = MixConv2d(
        layer.in_channels,
        layer.out_channels,
        kernel_sizes,
        layer.stride,
        _padding(layer, first, parse_kernel_sizes(kernel_sizes)[0]),
        first.dilation,
        bias=first.bias is not None,
        split=split,
    ).to(first.weight)
    filters = [row[None] for conv in sources for row in conv.weight.detach()]
    biases = [value for conv in sources if conv.bias is not None for value in conv.bias.detach()]
    start = 0
    with torch.no_grad():
        for conv in mixed.convs:
            own = slice(start, start + conv.out_channels)
            start = own.stop
            kernels = [crop(row, conv.kernel_size) if allow_crop else row for row in filters[own]]
            try:
                conv.weight.copy_(torch.cat([grow(kernel, conv.kernel_size) for kernel in kernels]))
            except ValueError as error:
                raise ValueError(f'{error}; choose larger kernel_sizes, or cut it with allow_crop=True') from None
            conv.weight.requires_grad_(first.weight.requires_grad)
            if conv.bias is not None and first.bias is not None:
                conv.bias.copy_(torch.stack(biases[own]))
                conv.bias.requires_grad_(first.bias.requires_grad)
    return mixed.train(layer.training)


def _padding(layer: Depthwise, first: nn.Conv2d, kernel: tuple[int, int]) -> Union[str, tuple[int, ...]]:
    """Padding of a MixConv2d in place of ``layer``, if its first kernel grows from that of ``first`` to ``kernel``."""
    if layer.padding == 'same' or type(layer).__name__ in SAME_CONVS:
        return 'same'
    margins = (d * (to - k) // 2 for d, to, k in zip(first.dilation, kernel, first.kernel_size))
    return tuple(pad + margin for pad, margin in zip(_pixels(first), margins))


def _pixels(conv: nn.Conv2d) -> tuple[int, ...]:
    """Padding of ``conv``, px."""
    if isinstance(conv.padding, str):  # PyTorch's: 'valid', or 'same', which needs stride 1
        same = conv.padding == 'same'
        return tuple(d * (k - 1) // 2 if same else 0 for d, k in zip(conv.dilation, conv.kernel_size))
    return conv.padding


def _check(layer: Depthwise, sources: Sequence[nn.Conv2d]) -> None:
    """Raise ValueError unless a MixConv2d can compute what ``layer`` computes."""
    cls = type(layer)
    if parametrize.is_parametrized(layer):
        raise ValueError('its weight is parametrised; remove the parametrisation first')
    if isinstance(layer, MixConv2d):
        if any(conv.dilation != layer.dilation for conv in sources):
            raise ValueError('dilated kernels cannot be kept; build the network without dilated=True')
        return
    if (cls.__module__, cls.__name__) not in PLAIN_CONVS and cls.__name__ not in SAME_CONVS:
        raise ValueError(f'a {cls.__name__} may compute more than a convolution; leave it out with where')
    if layer.padding_mode != 'zeros':
        raise ValueError(f"padding_mode='{layer.padding_mode}': MixConv2d pads with zeros")
    if any(size % 2 == 0 for size in layer.kernel_size):
        raise ValueError(f'its kernel {layer.kernel_size} is even and has no centre; leave it out with where')
