"""MixNet S, M, L and XL (paper sec. 4.2, fig. 8)."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional, Union

from mixdet.backbones.base import HEAD, StagedBackbone
from mixdet.layers import ConvNormAct, InvertedResidual, make_divisible
from mixdet.registry import MODELS

HEAD_CHANNELS = 1536


class Row(NamedTuple):
    """``repeats`` blocks of equal settings, except that only the first has ``stride``; the others have stride 1.

    ``expand`` is the expansion ratio. ``groups`` are those of the expanding and of the projecting 1x1 convolution: they
    are in the official code, not in the paper's text. ``se`` is the squeeze width over the block's input channels, 0
    for none. ``swish``: whether the activation is Swish instead of ReLU.
    """

    repeats: int
    kernels: tuple[int, ...]
    stride: int
    expand: int
    channels: int
    groups: tuple[int, int] = (1, 1)
    se: float = 0.0
    swish: bool = False


class Arch(NamedTuple):
    """A MixNet: ``rows`` with channels times ``width`` and repeats times ``depth``."""

    stem: int
    rows: tuple[Row, ...]
    width: float = 1.0
    depth: float = 1.0


# The rows are those of the official code, the stages those of the paper's fig. 8. Each comment gives the resolution and
# the stride of a stage's output for an image of 224 px, and which output of the backbone it is (0-3), if any.
# Columns: repeats, kernels, stride, expand, channels, groups, se, swish.
S = (
    # stage 0: 112 x 112 px, stride 2
    Row(1, (3,), 1, 1, 16),
    # stage 1: 56 x 56 px, stride 4, output 0
    Row(1, (3,), 2, 6, 24, (2, 2)),
    Row(1, (3,), 1, 3, 24, (2, 2)),
    # stage 2: 28 x 28 px, stride 8, output 1
    Row(1, (3, 5, 7), 2, 6, 40, se=0.5, swish=True),
    Row(3, (3, 5), 1, 6, 40, (2, 2), se=0.5, swish=True),
    # stage 3: 14 x 14 px, stride 16
    Row(1, (3, 5, 7), 2, 6, 80, (1, 2), se=0.25, swish=True),
    Row(2, (3, 5), 1, 6, 80, (1, 2), se=0.25, swish=True),
    # stage 4: 14 x 14 px, stride 16, output 2
    Row(1, (3, 5, 7), 1, 6, 120, (2, 2), se=0.5, swish=True),
    Row(2, (3, 5, 7, 9), 1, 3, 120, (2, 2), se=0.5, swish=True),
    # stage 5: 7 x 7 px, stride 32, output 3
    Row(1, (3, 5, 7, 9, 11), 2, 6, 200, se=0.5, swish=True),
    Row(2, (3, 5, 7, 9), 1, 6, 200, (1, 2), se=0.5, swish=True),
)
M = (
    # stage 0: 112 x 112 px, stride 2
    Row(1, (3,), 1, 1, 24),
    # stage 1: 56 x 56 px, stride 4, output 0
    Row(1, (3, 5, 7), 2, 6, 32, (2, 2)),
    Row(1, (3,), 1, 3, 32, (2, 2)),
    # stage 2: 28 x 28 px, stride 8, output 1
    Row(1, (3, 5, 7, 9), 2, 6, 40, se=0.5, swish=True),
    Row(3, (3, 5), 1, 6, 40, (2, 2), se=0.5, swish=True),
    # stage 3: 14 x 14 px, stride 16
    Row(1, (3, 5, 7), 2, 6, 80, se=0.25, swish=True),
    Row(3, (3, 5, 7, 9), 1, 6, 80, (2, 2), se=0.25, swish=True),
    # stage 4: 14 x 14 px, stride 16, output 2
    Row(1, (3,), 1, 6, 120, se=0.5, swish=True),
    Row(3, (3, 5, 7, 9), 1, 3, 120, (2, 2), se=0.5, swish=True),
    # stage 5: 7 x 7 px, stride 32, output 3
    Row(1, (3, 5, 7, 9), 2, 6, 200, se=0.5, swish=True),
    Row(3, (3, 5, 7, 9), 1, 6, 200, (1, 2), se=0.5, swish=True),
)
# L is M with 1.3 times the width, as in the paper; XL is timm's, with 1.6 times the width and 1.2 times the depth
ARCHS = {'s': Arch(16, S), 'm': Arch(24, M), 'l': Arch(24, M, width=1.3), 'xl': Arch(24, M, width=1.6, depth=1.2)}


def stages(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows of each stage of the paper's figure, which are those of the same number of channels."""
    for _, stage in itertools.groupby(rows, key=lambda row: row.channels):
        yield list(stage)


def scale_depth(repeats: Sequence[int], depth: float) -> list[int]:
    """Repeats of a stage's rows when it has ``depth`` times as many blocks, the last rows first (timm's rule)."""
    total = sum(repeats)
    target = max(1, round(total * depth))
    scaled = []
    for n in reversed(repeats):
        scaled.append(max(1, round(n / total * target)))
        total, target = total - n, target - scaled[-1]
    return scaled[::-1]


@MODELS.register_module()
class MixNet(StagedBackbone):
    """MixNet; see :class:`StagedBackbone` for ``out_indices``, ``frozen_stages``, ``norm_eval`` and ``init_cfg``.

    SSDLite takes ``out_indices=('expansion', 'head')`` by analogy with MobileNetV2 (the paper has no MixNet detector):
    720, 720 and 960 channels for S, M and L, and 1536.

    Args:
        arch: 's', 'm', 'l' or 'xl'.
        widen_factor: width multiplier on top of the arch's own; the head keeps its 1536 channels.
        padding: 'symmetric', or 'same' for weights from TensorFlow.
        norm_cfg, with_cp: as everywhere in MMDetection.
        act_cfg: replaces both of MixNet's activations (ReLU early, Swish later); None keeps them.

    Raises:
        ValueError: if there is no such ``arch``, or as :class:`StagedBackbone` does.
    """

    def __init__(
        self,
        arch: str = 's',
        widen_factor: float = 1.0,
        out_indices: Sequence[Union[int, str]] = (0, 1, 2, 3),
        padding: str = 'symmetric',
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: Optional[dict] = None,
        act_cfg: Optional[dict] = None,
        with_cp: bool = False,
        init_cfg: Optional[Union[dict, list]] = None,
    ) -> None:
        if arch not in ARCHS:
            raise ValueError(f'arch={arch!r}: must be one of {tuple(ARCHS)}')
        spec = ARCHS[arch]
        norm_cfg = norm_cfg or dict(type='BN', eps=0.001, momentum=0.01)
        relu, swish = act_cfg or dict(type='ReLU'), act_cfg or dict(type='SiLU')

        def width(channels: int) -> int:
            return make_divisible(channels * spec.width * widen_factor)

        channels = width(spec.stem)
        stem = ConvNormAct(3, channels, 3, stride=2, padding=padding, norm_cfg=norm_cfg, act_cfg=relu)
        blocks = []
        for stage in stages(spec.rows):
            for row, repeats in zip(stage, scale_depth([row.repeats for row in stage], spec.depth)):
                for i in range(repeats):
                    blocks.append(
                        InvertedResidual(
                            channels,
                            width(row.channels),
                            row.kernels,
                            row.stride if i == 0 else 1,
                            row.expand,
                            row.se,
                            *row.groups,
                            padding=padding,
                            norm_cfg=norm_cfg,
                            act_cfg=swish if row.swish else relu,
                            with_cp=with_cp,
                        )
                    )
                    channels = blocks[-1].out_channels
        head = ConvNormAct(channels, HEAD_CHANNELS, norm_cfg=norm_cfg, act_cfg=relu) if HEAD in out_indices else None
        super().__init__(stem, blocks, head, out_indices, frozen_stages, norm_eval, init_cfg)
