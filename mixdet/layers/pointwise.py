"""1x1 convolutions, which are most of what these networks compute."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixdet.layers.implementations import SLOW_GRADIENTS, exporting, is_compiling
from mixdet.registry import MODELS


@MODELS.register_module()
class PointwiseConv2d(nn.Conv2d):
    """A 1x1 ``nn.Conv2d`` of any groups; shapes (N, C, H, W) -> (N, C', H, W).

    On one CPU thread and up to 15 images PyTorch takes its own matrix product for 1x1 kernels ("THNN is faster when
    single-threaded", aten/src/ATen/native/Convolution.cpp, use_mkldnn), with a loop over groups and copies for bias.
    In channels_last oneDNN's convolution is up to twice as fast (docs/speed.md). PyTorch leaves dilated kernels to it,
    and to a kernel of one tap dilation makes no difference. It does not leave it one small image without groups: a
    dilated kernel would there take a loop over pixels, several times slower than the matrix product.

    ``padding`` is accepted and ignored, as in ``Conv2dSame``.
    """

    def __init__(self, in_channels, out_channels, kernel_size=1, stride=1, padding=0, **kwargs) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=0, **kwargs)
        if self.kernel_size != (1, 1) or self.stride != (1, 1):
            raise ValueError(f'kernel_size={kernel_size}, stride={stride}: PointwiseConv2d is for 1x1 of stride 1')

    def forward(self, x: Tensor) -> Tensor:
        wanted = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        slow = SLOW_GRADIENTS and wanted
        dilation = 2 if _left_to_thnn(x) and not _too_small(x, self.groups) and not slow else 1
        return F.conv2d(x, self.weight, self.bias, dilation=dilation, groups=self.groups)


def _left_to_thnn(x: Tensor) -> bool:
    return (
        x.is_cpu
        and x.dtype == torch.float32
        and not is_compiling()
        and not exporting()
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()
        and torch.get_num_threads() == 1
        and torch.backends.mkldnn.is_available()
        and torch._C._get_mkldnn_enabled()
    )


def _too_small(x: Tensor, groups: int) -> bool:
    """The last condition of use_mkldnn."""
    return groups == 1 and x.size(0) == 1 and x.numel() <= 20480
