"""TensorFlow's "SAME" padding.

TensorFlow derives the padding from the input's size so that the output has ``ceil(size / stride)`` pixels, and puts an
odd pixel *after* the input: a convolution of stride 2 pads an input of even size by (k - 3) / 2 before and (k - 1) / 2
after (kernel 3: 0, 1; kernel 5: 1, 2), one of odd size equally on both sides. Symmetric padding gives the same shapes
but samples one pixel off, which ruins weights trained in TensorFlow
(https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2).
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import wrap

from mixdet.registry import MODELS

wrap('pad_same')  # torch.fx: one node, as the padding follows from sizes that are not known while tracing
PADDINGS = ('symmetric', 'same')


def check_padding(padding: str) -> str:
    """Return ``padding``, or raise ValueError if it is neither 'symmetric' nor 'same'."""
    if padding not in PADDINGS:
        raise ValueError(f"padding={padding!r}: must be 'symmetric' or 'same' (TensorFlow's)")
    return padding


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Pixels that SAME padding adds before and after an axis of ``size`` px."""
    out = -(-size // stride)
    total = max((out - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel_size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    """Zero-pad ``x`` (N, C, H, W) as TensorFlow's SAME does; the other arguments are pairs (height, width)."""
    top, bottom = same_padding(x.shape[-2], kernel_size[0], stride[0], dilation[0])
    left, right = same_padding(x.shape[-1], kernel_size[1], stride[1], dilation[1])
    return F.pad(x, (left, right, top, bottom))


@MODELS.register_module()
class Conv2dSame(nn.Conv2d):
    """``nn.Conv2d`` with TensorFlow's SAME padding; shapes (N, C, H, W) -> (N, C', ceil(H / s), ceil(W / s)).

    ``padding`` is accepted and ignored, so that mmcv's ``build_conv_layer`` can build the layer in place of a
    ``Conv2d``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, **kwargs: Any
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=0, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""
        return super().forward(pad_same(x, self.kernel_size, self.stride, self.dilation))
