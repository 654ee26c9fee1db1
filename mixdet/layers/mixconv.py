"""MixConv: mixed depthwise convolution (Tan & Le, BMVC 2019, arXiv 1907.09595, sec. 3)."""

import math
from collections.abc import Sequence
from operator import index
from typing import TYPE_CHECKING, Any, Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixdet.layers import implementations
from mixdet.layers.padding import PADDINGS, same_padding
from mixdet.registry import MODELS

Size = Union[int, Sequence[int]]  # a sequence is a pair (height, width)
KernelSizes = Union[int, Sequence[Size]]
Split = Union[str, Sequence[int]]
is_scripting = torch.jit.is_scripting  # type: ignore[attr-defined]  # public, but missing in torch.jit's __all__

if TYPE_CHECKING:

    class GroupConv(nn.Conv2d):
        """A group's ``nn.Conv2d`` as ``MixConv2d`` builds it: all its sizes are pairs (height, width)."""

        kernel_size: tuple[int, int]
        stride: tuple[int, int]
        padding: tuple[int, int]
        dilation: tuple[int, int]


def split_channels(channels: int, groups: int, split: Split = 'equal') -> tuple[int, ...]:
    """Channels of each MixConv group (paper sec. 3.2, "channel partition").

    Args:
        channels: number of channels to split.
        groups: number of groups.
        split: 'equal' gives the remainder to the first group, as the official code and timm do (32 in 3: 12, 10, 10);
            'exponential' gives group i about 2^-i of the channels (32 in 4: 16, 8, 4, 4); a sequence gives the channels
            of each group.

    Raises:
        ValueError: if a group would be empty, or the given channels do not add up.
    """
    if groups > channels:
        raise ValueError(f'kernel_size has {groups} groups but there are only {channels} channels to split')
    if isinstance(split, str):
        if split == 'equal':
            sizes = [channels // groups] * groups
            sizes[0] += channels % groups
        elif split == 'exponential':
            sizes = [channels >> (i + 1) for i in range(groups - 1)]
            sizes.append(channels - sum(sizes))
        else:
            raise ValueError(f"split={split!r}: must be 'equal', 'exponential' or a list of channels per group")
    else:
        sizes = [_integer('split', size) for size in split]
        if len(sizes) != groups or sum(sizes) != channels:
            raise ValueError(f'split={sizes}: must give {groups} groups that add up to {channels} channels')
    if min(sizes) < 1:
        raise ValueError(f'split={split!r} of {channels} channels in {groups} groups leaves a group empty: {sizes}')
    return tuple(sizes)


def parse_kernel_sizes(kernel_size: KernelSizes) -> tuple[tuple[int, int], ...]:
    """``kernel_size`` as one (height, width) pair per group.

    An int is one group, a vanilla depthwise convolution; a sequence has one entry per group: an int or, for a
    non-square kernel, a pair. Raises ValueError unless every size is odd and positive.
    """
    entries = kernel_size if isinstance(kernel_size, Sequence) else (kernel_size,)
    if isinstance(kernel_size, str) or not entries:
        raise ValueError(f'kernel_size={kernel_size!r}: must be an odd int or a sequence of them, one per group')
    sizes = tuple(_pair('kernel_size', entry) for entry in entries)
    if any(k < 1 or k % 2 == 0 for size in sizes for k in size):
        raise ValueError(f'kernel_size={kernel_size!r}: every size must be odd and positive')
    return sizes


def _integer(name: str, value: Any) -> int:
    try:
        return index(value)
    except TypeError:
        raise ValueError(f'{name}={value!r}: must be an integer') from None


def _pair(name: str, value: Any) -> tuple[int, int]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        value = (value, value)
    if len(value) != 2:
        raise ValueError(f'{name}={value!r}: must be an integer or a pair (height, width)')
    return _integer(name, value[0]), _integer(name, value[1])


def _dilate(kernel: int) -> tuple[int, int]:
    """(kernel, dilation) that spans ``kernel`` pixels with at most three taps."""
    return (3, (kernel - 1) // 2) if kernel > 1 else (1, 1)


@MODELS.register_module()
class MixConv2d(nn.Module):
    """Mixed depthwise convolution: split the channels into groups, convolve each with its own kernel, concatenate.

    Shapes: (N, C, H, W) -> (N, C * m, H', W'), where the channel multiplier m is ``out_channels / in_channels``. Group
    i of the output holds the m outputs of each channel of group i of the input. With one group this is an ordinary
    depthwise convolution. Source: paper sec. 3.1-3.4 and its official code.

    It can be used directly, through mmcv's ``build_conv_layer``, and in ``ConvModule`` with
    ``conv_cfg=dict(type='mixdet.MixConv2d')``.

    Attributes:
        convs: an ``nn.ModuleList`` with the convolution of each group.
        in_splits (tuple[int]): input channels of each group.

    Args:
        in_channels: input channels C.
        out_channels: output channels, a multiple of ``in_channels``.
        kernel_size: odd int, or a sequence with one odd size per group; a pair in that sequence is (height, width).
        stride: int or pair.
        padding: 'symmetric' ((k - 1) / 2 px on both sides, for each group's own k), 'same' (TensorFlow's), or the
            padding in px (int or pair) of the *first* group, from which that of the other groups follows, as all
            outputs must have the same size.
        dilation: int or pair, spacing between kernel elements of every group.
        groups: only for code that builds depthwise convolutions generically: 1 (unset) or ``in_channels``.
        bias: whether to learn an additive bias.
        split: how the channels are split into groups, see :func:`split_channels`.
        dilated: the dilated variant (sec. 3.4): a KxK kernel becomes 3x3 with dilation (K - 1) / 2. Layers with a
            stride keep their full kernels.
        impl: the implementation: 'auto', 'split', 'padded', 'native' or 'triton', see
            :mod:`mixdet.layers.implementations`. Results and parameters do not depend on it;
            :func:`set_mixconv_impl` sets it for a whole model.

    Raises:
        ValueError: if the arguments are not possible; the message names the one at fault.
    """

    if TYPE_CHECKING:  # torch.jit.script would read the annotation
        convs: Sequence['GroupConv']
    transposed = False
    output_padding = (0, 0)
    activation: Optional[str] = None  # a key of implementations.ACTIVATIONS if one has been folded into the layer

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: KernelSizes,
        stride: Size = 1,
        padding: Union[str, Size] = 'symmetric',
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = False,
        split: Split = 'equal',
        dilated: bool = False,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        if in_channels < 1 or out_channels < in_channels or out_channels % in_channels:
            raise ValueError(
                f'out_channels={out_channels}: must be a multiple (channel multiplier m >= 1) of '
                f'in_channels={in_channels}'
            )
        if groups not in (1, in_channels):
            raise ValueError(f'groups={groups}: MixConv2d is depthwise, leave it out or pass in_channels={in_channels}')
        if isinstance(padding, str) and padding not in PADDINGS:
            raise ValueError(f"padding={padding!r}: must be 'symmetric', 'same', an integer or a pair")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.groups = in_channels
        self.kernel_size = parse_kernel_sizes(kernel_size)
        self.stride = _pair('stride', stride)
        self.dilation = _pair('dilation', dilation)
        if min(self.stride + self.dilation) < 1:
            raise ValueError(f'stride={stride}, dilation={dilation}: must be at least 1')
        self.padding = padding if isinstance(padding, str) else _pair('padding', padding)
        self._pads_same = padding == 'same'
        self.activation = None
        self.dilated = dilated
        self.impl = implementations.check_impl(impl)
        self.in_splits = split_channels(in_channels, len(self.kernel_size), split)
        multiplier = out_channels // in_channels
        convs = [
            nn.Conv2d(
                channels,
                channels * multiplier,
                kernel,
                self.stride,
                self._group_padding(kernel, group_dilation),
                group_dilation,
                groups=channels,
                bias=bias,
            )
            for channels, (kernel, group_dilation) in zip(self.in_splits, map(self._taps, self.kernel_size))
        ]
        self.add_module('convs', nn.ModuleList(convs))
        self.init_weights()

    def _taps(self, kernel: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Kernel and dilation of the convolution of a group whose nominal size is ``kernel``."""
        if not self.dilated or self.stride != (1, 1):
            return kernel, self.dilation
        (kh, dh), (kw, dw) = map(_dilate, kernel)
        return (kh, kw), (dh * self.dilation[0], dw * self.dilation[1])

    def _group_padding(self, kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
        if self.padding == 'same':
            return 0, 0  # the input is padded in forward, where its size is known
        top, left = (d * (k - 1) // 2 for k, d in zip(kernel, dilation))
        if isinstance(self.padding, str):
            return top, left
        first_top, first_left = (d * (k - 1) // 2 for k, d in zip(*self._taps(self.kernel_size[0])))
        pads = self.padding[0] + top - first_top, self.padding[1] + left - first_left
        if min(pads) < 0:
            raise ValueError(
                f'padding={self.padding}: too small for kernel_size={self.kernel_size}, a group would need {pads}; '
                "put the smallest kernel first or use padding='symmetric'"
            )
        return pads

    def init_weights(self) -> None:
        """He-normal weights with the fan-out of a single channel, k_h * k_w * m, as in the official MixNet code."""
        for conv in self.convs:
            fan_out = math.prod(conv.kernel_size) * conv.out_channels // conv.in_channels
            nn.init.normal_(conv.weight, 0, math.sqrt(2 / fan_out))
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C * m, H', W')."""
        if is_scripting():
            return self._script(x)
        else:  # torch.jit.script leaves out an else branch, but not what follows an if
            return implementations.compute(self, x)

    def _script(self, x: Tensor) -> Tensor:
        """What ``implementations.split`` computes, in the subset of Python that torch.jit.script can compile."""
        outputs = []
        first = 0
        for conv in self.convs:
            group = x.narrow(1, first, conv.in_channels)
            first += conv.in_channels
            if self._pads_same:
                (height, width), (down, right), (rows, columns) = conv.kernel_size, conv.stride, conv.dilation
                top, bottom = same_padding(group.shape[2], height, down, rows)
                before, after = same_padding(group.shape[3], width, right, columns)
                group = F.pad(group, [before, after, top, bottom])
            outputs.append(conv(group))
        out = torch.cat(outputs, 1)
        activation = self.activation  # a local variable, as the compiler does not narrow the type of an attribute
        if activation is not None:
            out = F.relu(out) if activation == 'relu' else F.relu6(out)
        return out

    def extra_repr(self) -> str:
        """The settings, for the layer's ``repr``."""
        return (
            f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, split={self.in_splits}, '
            f'stride={self.stride}, padding={self.padding}, dilated={self.dilated}, impl={self.impl!r}'
        )


def set_mixconv_impl(model: nn.Module, impl: str) -> nn.Module:
    """Set the implementation of every ``MixConv2d`` of ``model`` and return ``model``.

    Raises ValueError if there is no such implementation.
    """
    implementations.check_impl(impl)
    for module in model.modules():
        if isinstance(module, MixConv2d):
            module.impl = impl
    return model
