"""SAME padding of a network whose input has a fixed size."""

from collections import defaultdict
from typing import Any, Optional

import torch
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from torch import Tensor, nn

from mixdet.layers import Conv2dSame
from mixdet.layers.padding import same_padding


def use_own_padding(network: nn.Module, example: Tensor) -> None:
    """Have the convolutions with SAME padding that pad both sides alike for ``example`` pad by themselves, in place.

    SAME is one more operation, as it depends on the size of the input and may pad the sides differently. Where it does
    not for the one size that a network is exported for, the convolution can do it. pnnx, moreover, loses an equal
    padding of its own (20261020).
    """
    found: dict[nn.Conv2d, set[tuple[int, ...]]] = defaultdict(set)

    def record(conv: Any, inputs: tuple[Tensor, ...]) -> None:
        sides = zip(inputs[0].shape[-2:], conv.kernel_size, conv.stride, conv.dilation)
        found[conv].add(sum((same_padding(*each) for each in sides), ()))

    kinds = (Conv2dSame, Conv2dAdaptivePadding)
    hooks = [module.register_forward_pre_hook(record) for module in network.modules() if type(module) in kinds]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    plain = {conv: _plain(conv, *next(iter(paddings))) for conv, paddings in found.items() if len(paddings) == 1}
    for module in list(network.modules()):
        for name, child in module.named_children():
            replacement = plain.get(child) if isinstance(child, nn.Conv2d) else None
            if replacement is not None:
                setattr(module, name, replacement)


def _plain(conv: Any, top: int, bottom: int, left: int, right: int) -> Optional[nn.Conv2d]:
    """``conv`` as a convolution with its own padding; None if that differs between its sides."""
    if top != bottom or left != right:
        return None
    plain = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, (top, left), conv.dilation, conv.groups,
        bias=conv.bias is not None,
    )  # fmt: skip
    plain.weight, plain.bias = conv.weight, conv.bias
    return plain.eval()
