"""Building blocks of MobileNetV1, MobileNetV2 and MixNet.

Every block has ``out_channels``; every convolution is followed by batch-norm and, except linear projections, by an
activation.
"""

from typing import Optional

import torch.utils.checkpoint as cp
from mmcv.cnn import ConvModule, build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mixdet.layers.batch_norm import norm_act
from mixdet.layers.mixconv import KernelSizes, Split
from mixdet.layers.padding import check_padding


def make_divisible(channels: float, divisor: int = 8) -> int:
    """``channels`` rounded to a multiple of ``divisor``, but never below 90 % of ``channels`` (MobileNetV2's code)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


class _ConvModule(ConvModule):
    """mmcv's ``ConvModule``, which trains its batch-norm and activation as one operator where there is one."""

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        if not (self.training and activate and norm and self.with_norm) or self.with_explicit_padding:
            return super().forward(x, activate, norm)
        return norm_act(self.conv(x), self.norm, self.activate if self.with_activation else None)


class ConvNormAct(_ConvModule):
    """Convolution, normalisation, activation; (N, C, H, W) -> (N, C', H / s, W / s).

    mmcv's ``ConvModule`` with these changes: 1x1 convolutions are ``PointwiseConv2d``, padding is 'symmetric' or
    'same', and it counts as initialised once it is built: otherwise MMEngine would let ``ConvModule.init_weights``
    overwrite what the ``init_cfg`` of the network that contains it (truncated normal, say) has set.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        padding: str = 'symmetric',
        norm_cfg: Optional[dict] = None,
        act_cfg: Optional[dict] = None,
    ) -> None:
        same = check_padding(padding) == 'same' and kernel_size > 1
        conv_type = (
            'mixdet.Conv2dSame' if same else 'mixdet.PointwiseConv2d' if kernel_size == stride == 1 else 'Conv2d'
        )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=0 if same else kernel_size // 2,
            groups=groups,
            conv_cfg=dict(type=conv_type),
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            inplace=False,  # ReLU6's and SiLU's gradients need their input, which autograd would copy if in place
        )
        self.is_init = True


class MixConvNormAct(_ConvModule):
    """Mixed depthwise convolution, normalisation, activation; (N, C, H, W) -> (N, C, H / s, W / s)."""

    def __init__(
        self,
        channels: int,
        kernel_sizes: KernelSizes = 3,
        stride: int = 1,
        split: Split = 'equal',
        dilated: bool = False,
        padding: str = 'symmetric',
        norm_cfg: Optional[dict] = None,
        act_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(
            channels,
            channels,
            kernel_sizes,
            stride,
            padding=check_padding(padding),
            groups=channels,
            conv_cfg=dict(type='mixdet.MixConv2d', split=split, dilated=dilated),
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            inplace=False,  # ReLU6's and SiLU's gradients need their input, which autograd would copy if in place
        )
        self.is_init = True


class SqueezeExcite(nn.Module):
    """Channel attention: x * sigmoid(expand(act(reduce(mean(x))))); shape (N, C, H, W) kept.

    Two 1x1 convolutions with bias, as in the official MixNet code.
    """

    def __init__(self, channels: int, squeeze_channels: int, act_cfg: Optional[dict]) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeeze_channels, 1)
        self.act = nn.Identity() if act_cfg is None else build_activation_layer(act_cfg)
        self.expand = nn.Conv2d(squeeze_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels: (N, C, H, W) -> (N, C, H, W)."""
        return x * self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))).sigmoid()


class DepthwiseSeparable(BaseModule):
    """MobileNetV1's layer: depthwise, then 1x1, each with an activation; (N, C, H, W) -> (N, C', H / s, W / s)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: KernelSizes = 3,
        stride: int = 1,
        split: Split = 'equal',
        dilated: bool = False,
        padding: str = 'symmetric',
        norm_cfg: Optional[dict] = None,
        act_cfg: Optional[dict] = None,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.stride = stride
        self.with_cp = with_cp
        self.depthwise = MixConvNormAct(in_channels, kernel_sizes, stride, split, dilated, padding, norm_cfg, act_cfg)
        self.pointwise = ConvNormAct(in_channels, out_channels, norm_cfg=norm_cfg, act_cfg=act_cfg)

    def _transform(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        if self.with_cp and x.requires_grad:
            return cp.checkpoint(self._transform, x, use_reentrant=False)
        return self._transform(x)


class InvertedResidual(BaseModule):
    """MobileNetV2's and MixNet's block; (N, C, H, W) -> (N, C', H / s, W / s).

    1x1 expansion (none if ``expand_ratio`` is 1), mixed depthwise convolution, squeeze-and-excitation, linear 1x1
    projection, and a shortcut if input and output have the same shape.

    Args:
        in_channels, out_channels: channels C and C'.
        kernel_sizes, stride, split, dilated, padding: of the depthwise convolution, see ``MixConv2d``.
        expand_ratio: width of the expansion over ``in_channels``.
        se_ratio: squeeze width over ``in_channels`` (the block's input, not its expansion); 0 for no
            squeeze-and-excitation.
        expand_groups, project_groups: groups of the two 1x1 convolutions. MixNet's official code groups some of them,
            which the paper's text does not mention.
        norm_cfg, act_cfg, with_cp: as everywhere in MMDetection.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: KernelSizes = 3,
        stride: int = 1,
        expand_ratio: int = 6,
        se_ratio: float = 0.0,
        expand_groups: int = 1,
        project_groups: int = 1,
        split: Split = 'equal',
        dilated: bool = False,
        padding: str = 'symmetric',
        norm_cfg: Optional[dict] = None,
        act_cfg: Optional[dict] = None,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        width = in_channels * expand_ratio
        self.out_channels = out_channels
        self.stride = stride
        self.with_cp = with_cp
        self.with_shortcut = stride == 1 and in_channels == out_channels
        self.expand = (
            ConvNormAct(in_channels, width, groups=expand_groups, norm_cfg=norm_cfg, act_cfg=act_cfg)
            if expand_ratio != 1
            else None
        )
        self.depthwise = MixConvNormAct(width, kernel_sizes, stride, split, dilated, padding, norm_cfg, act_cfg)
        self.se = SqueezeExcite(width, max(1, int(in_channels * se_ratio)), act_cfg) if se_ratio else None
        self.project = ConvNormAct(width, out_channels, groups=project_groups, norm_cfg=norm_cfg)

    def expansion(self, x: Tensor) -> Tensor:
        """The block's expanded features, before its depthwise convolution: (N, expand_ratio * C, H, W)."""
        return x if self.expand is None else self.expand(x)

    def finish(self, x: Tensor, expanded: Tensor) -> Tensor:
        """The block's output, given its input ``x`` and ``expansion(x)``."""
        out = self.depthwise(expanded)
        if self.se is not None:
            out = self.se(out)
        out = self.project(out)
        return x + out if self.with_shortcut else out

    def _transform(self, x: Tensor) -> Tensor:
        return self.finish(x, self.expansion(x))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        if self.with_cp and x.requires_grad:
            return cp.checkpoint(self._transform, x, use_reentrant=False)
        return self._transform(x)
