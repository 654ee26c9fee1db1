"""MixConv as a drop-in: depthwise convolutions of any network replaced in place, weights kept by kernel growth."""

import fnmatch
from collections.abc import Container, Sequence
from typing import NamedTuple, Optional, Union

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mixdet.layers.mixconv import KernelSizes, MixConv2d, Split, parse_kernel_sizes
from mixdet.layers.modes import evaluation_mode

# plain convolutions by another name, and those that pad as TensorFlow does (ours, timm's, mmcv's)
PLAIN = {('torch.nn.modules.conv', 'Conv2d'), ('mmcv.cnn.bricks.wrappers', 'Conv2d')}
SAME = {'Conv2dSame', 'Conv2dAdaptivePadding'}


class Where(NamedTuple):
    """Which depthwise convolutions to replace; a field that is None selects all, several fields must all hold.

    ``name``: pattern(s) of the dotted module name (``layer4.*``). ``stride``: the layer's own, 1 or 2. ``stage``:
    MMDetection's number(s) of the stage that the layer's output belongs to, 0-3 for stride 4-32 (-1: stride 2).
    ``resolution``: height(s) of the output in px for images of ``input_size``; any container, such as a range.

    ``stage`` and ``resolution`` are found by running the network once on a black image of ``input_size`` px.
    """

    name: Optional[Union[str, Sequence[str]]] = None
    stride: Optional[Union[int, Container[int]]] = None
    stage: Optional[Union[int, Container[int]]] = None
    resolution: Optional[Union[int, Container[int]]] = None
    input_size: int = 224


def grow(weights: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """Kernels (N, 1, h, w) centred in zeros of ``kernel_size``: the same function, as every padding is centred.

    Raises ValueError if the target is smaller.
    """
    margins = [(to - size) // 2 for size, to in zip(weights.shape[-2:], kernel_size)]
    if min(margins) < 0:
        raise ValueError(f'a {tuple(weights.shape[-2:])} kernel does not fit into {kernel_size}')
    return nn.functional.pad(weights, (margins[1], margins[1], margins[0], margins[0]))


def crop(weights: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """The middle of kernels (N, 1, h, w) where ``kernel_size`` is smaller; unchanged where it is not."""
    for axis, size in zip((-2, -1), kernel_size):
        excess = max(weights.shape[axis] - size, 0)
        weights = weights.narrow(axis, excess // 2, weights.shape[axis] - excess)
    return weights


def depthwise_layers(module: nn.Module) -> dict[str, nn.Module]:
    """The depthwise convolutions in ``module`` by dotted name: one filter of its own for every input channel."""
    found: dict[str, nn.Module] = {}
    for name, layer in module.named_modules():
        inside = any(isinstance(outer, MixConv2d) and name.startswith(f'{above}.') for above, outer in found.items())
        depthwise = isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
        if isinstance(layer, MixConv2d) or (depthwise and not inside):
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

    Weights are kept: each kernel is centred in the zeros of a larger one, so the network computes what it did before,
    and the new taps learn from there. Strides, dilation, bias, padding (TensorFlow's too), precision, device and
    ``requires_grad`` stay as they are.

    Args:
        module: any network.
        kernel_sizes: sizes of the groups, as ``MixConv2d`` takes them.
        split: how channels are shared out, see :func:`split_channels`.
        where: which layers, see :class:`Where`; all without it.
        allow_crop: cut kernels that are larger than their group's to the middle, which changes the function; otherwise
            they are refused.

    Returns:
        The dotted names of the layers that were replaced.

    Raises:
        ValueError: if there is no such layer, or one cannot be replaced; nothing is changed then.
    """
    parse_kernel_sizes(kernel_sizes)
    layers = depthwise_layers(module)
    if not layers:
        raise ValueError(f'{type(module).__name__} has no depthwise convolution: there is nothing to replace')
    if '' in layers:
        raise ValueError(f'{type(module).__name__} is itself a convolution: pass the network around it')
    chosen = _select(module, layers, _where(where))
    if not chosen:
        raise ValueError(f'where={where} selects none of the {len(layers)} depthwise convolutions: {_some(layers)}')
    mixed = {}
    for name in chosen:
        try:
            mixed[layers[name]] = _mixed(layers[name], kernel_sizes, split, allow_crop)
        except ValueError as error:
            raise ValueError(f'layer {name}: {error}') from None
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):  # named_children leaves out the second use of a shared one
            if child in mixed:
                setattr(parent, name, mixed[child])
    return chosen


def _where(where: Optional[Union[dict, Where]]) -> Where:
    if isinstance(where, dict):
        unknown = sorted(set(where) - set(Where._fields))
        if unknown:
            raise ValueError(f'where={where}: there is no {", ".join(unknown)}; known: {", ".join(Where._fields)}')
        return Where(**where)
    return where or Where()


def _some(names) -> str:
    names = list(names)
    return ', '.join(names[:4]) + (' ...' if len(names) > 4 else '')


def _select(module: nn.Module, layers: dict[str, nn.Module], where: Where) -> list[str]:
    patterns = [where.name] if isinstance(where.name, str) else where.name
    heights = {}
    if where.stage is not None or where.resolution is not None:
        heights = _output_heights(module, layers, where.input_size)

    def matches(name: str, layer: nn.Module) -> bool:
        if patterns is not None and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            return False
        if not _among(max(layer.stride), where.stride):
            return False
        if not heights:
            return True
        height = heights.get(name, 0)  # 0: the layer does not run
        stage = round(where.input_size / height).bit_length() - 3 if height else None
        return _among(stage, where.stage) and _among(height, where.resolution)

    return [name for name, layer in layers.items() if matches(name, layer)]


def _among(value, wanted) -> bool:
    return wanted is None or (value in wanted if isinstance(wanted, Container) else value == wanted)


def _output_heights(module: nn.Module, layers: dict[str, nn.Module], input_size: int) -> dict[str, int]:
    names = {layer: name for name, layer in layers.items()}
    heights = {}

    def note(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        heights[names[layer]] = output.shape[-2]

    hooks = [layer.register_forward_hook(note) for layer in names]
    parameter = next(module.parameters())
    image = torch.zeros(1, 3, input_size, input_size, device=parameter.device, dtype=parameter.dtype)
    try:
        with torch.no_grad(), evaluation_mode(module):
            module(image)
    except Exception as error:  # any network can be passed
        raise ValueError(
            f'where: stage and resolution need a network that takes images (N, 3, H, W), and {type(module).__name__} '
            f'does not run on one of {input_size} px ({type(error).__name__}); pass its backbone'
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return heights


def _mixed(layer: nn.Module, kernel_sizes: KernelSizes, split: Split, allow_crop: bool) -> MixConv2d:
    """A MixConv2d that computes what ``layer``, an nn.Conv2d or a MixConv2d, does."""
    sources = layer.convs if isinstance(layer, MixConv2d) else [layer]
    _check(layer, sources)
    first = sources[0]
    bias = first.bias is not None
    kernels = parse_kernel_sizes(kernel_sizes)
    if layer.padding == 'same' or type(layer).__name__ in SAME:
        padding = 'same'
    else:
        margins = (d * (to - k) // 2 for d, to, k in zip(first.dilation, kernels[0], first.kernel_size))
        padding = tuple(p + m for p, m in zip(_pixels(first), margins))
    mixed = MixConv2d(
        layer.in_channels,
        layer.out_channels,
        kernel_sizes,
        layer.stride,
        padding,
        first.dilation,
        bias=bias,
        split=split,
    ).to(first.weight)
    fit = crop if allow_crop else lambda weights, kernel_size: weights
    filters = [row[None] for conv in sources for row in conv.weight.detach()]
    with torch.no_grad():
        for conv in mixed.convs:
            own, filters = filters[: conv.out_channels], filters[conv.out_channels :]
            try:
                conv.weight.copy_(torch.cat([grow(fit(row, conv.kernel_size), conv.kernel_size) for row in own]))
            except ValueError as error:
                raise ValueError(f'{error}; choose larger kernel_sizes, or cut it with allow_crop=True') from None
            conv.weight.requires_grad_(first.weight.requires_grad)
        if bias:
            biases = torch.cat([conv.bias.detach() for conv in sources])
            for conv, part in zip(mixed.convs, biases.split([conv.out_channels for conv in mixed.convs])):
                conv.bias.copy_(part)
                conv.bias.requires_grad_(first.bias.requires_grad)
    return mixed.train(layer.training)


def _pixels(conv: nn.Conv2d) -> tuple[int, int]:
    if conv.padding == 'same':  # PyTorch's, of stride 1 only
        return tuple(d * (k - 1) // 2 for d, k in zip(conv.dilation, conv.kernel_size))
    return (0, 0) if conv.padding == 'valid' else conv.padding


def _check(layer: nn.Module, sources: Sequence[nn.Conv2d]) -> None:
    """Raise ValueError unless a MixConv2d can compute what ``layer`` does."""
    kind = type(layer)
    if parametrize.is_parametrized(layer):
        raise ValueError('its weight is parametrised; remove the parametrisation first')
    if isinstance(layer, MixConv2d):
        if len({conv.dilation for conv in sources}) > 1 or sources[0].dilation != layer.dilation:
            raise ValueError('dilated kernels cannot be kept; build the network without dilated=True')
        return
    if (kind.__module__, kind.__name__) not in PLAIN and kind.__name__ not in SAME:
        raise ValueError(f'a {kind.__name__} may compute more than a convolution; leave it out with where')
    if layer.padding_mode != 'zeros':
        raise ValueError(f"padding_mode='{layer.padding_mode}': MixConv2d pads with zeros")
    if any(size % 2 == 0 for size in layer.kernel_size):
        raise ValueError(f'its kernel {layer.kernel_size} is even and has no centre; leave it out with where')
