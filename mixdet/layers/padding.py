"""TensorFlow's "SAME" padding.

TensorFlow chooses the padding from the input's size so that the output has ``ceil(size / stride)`` elements, and puts
the odd pixel *after*: a stride-2 convolution on an even input gets (k - 2) / 2 before and k / 2 after (k3: 0, 1;
k5: 1, 2), on an odd input both sides are equal. Symmetric padding gives the same shapes but samples one pixel off,
which ruins weights trained in TensorFlow (https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mixdet.registry import MODELS

PADDINGS = ('symmetric', 'same')


def check_padding(padding: str) -> str:
    """Return ``padding``, or raise ValueError if it is neither 'symmetric' nor 'same'."""
    if padding not in PADDINGS:
        raise ValueError(f"padding={padding!r}: must be 'symmetric' or 'same' (TensorFlow's)")
    return padding


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Pixels that SAME padding puts before and after one axis of ``size`` pixels."""
    out = -(-size // stride)
    total = max((out - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel_size: tuple, stride: tuple, dilation: tuple) -> Tensor:
    """Zero-pad ``x`` of shape (N, C, H, W) as TensorFlow's SAME does; each argument is a pair (height, width)."""
    top, bottom = same_padding(x.shape[-2], kernel_size[0], stride[0], dilation[0])
    left, right = same_padding(x.shape[-1], kernel_size[1], stride[1], dilation[1])
    return F.pad(x, (left, right, top, bottom))


@MODELS.register_module()
class Conv2dSame(nn.Conv2d):
    """``nn.Conv2d`` with TensorFlow's SAME padding; shapes (N, C, H, W) -> (N, C', ceil(H / s), ceil(W / s)).

    ``padding`` is accepted and ignored so that the layer can stand wherever mmcv's ``build_conv_layer`` builds a
    ``Conv2d``.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, **kwargs) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=0, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad_same(x, self.kernel_size, self.stride, self.dilation))
