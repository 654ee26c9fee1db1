"""1x1 convolutions, which take most of the computation of these networks."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy

from mixdet.layers.implementations import SLOW_GRADIENTS, exporting, is_compiling
from mixdet.registry import MODELS


@MODELS.register_module()
class PointwiseConv2d(nn.Conv2d):
    """A 1x1 ``nn.Conv2d`` with any number of groups; shapes (N, C, H, W) -> (N, C', H, W).

    For 1x1 kernels on a single CPU thread, with up to 15 images, PyTorch prefers its own matrix product ("THNN is
    faster when single-threaded", aten/src/ATen/native/Convolution.cpp, use_mkldnn), which loops over groups and copies
    for the bias. In channels_last oneDNN's convolution is up to twice as fast (docs/speed.md). PyTorch uses oneDNN for
    dilated kernels, and dilation does not change what a 1x1 kernel computes, so the layer declares a dilation of 2. The
    exception is one small image without groups, which PyTorch keeps from oneDNN in any case: a dilated kernel would be
    computed by a loop over pixels there, several times slower than the matrix product.

    ``padding`` is accepted and ignored, as in ``Conv2dSame``.

    Raises:
        ValueError: if the kernel is not 1x1 or the stride not 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any = 1,
        stride: Any = 1,
        padding: Any = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=0, **kwargs)
        if self.kernel_size != (1, 1) or self.stride != (1, 1):
            raise ValueError(
                f'kernel_size={kernel_size}, stride={stride}: PointwiseConv2d is for 1x1 kernels of stride 1'
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W)."""
        symbolic = isinstance(x, Proxy)
        slow = (
            SLOW_GRADIENTS
            and not symbolic
            and torch.is_grad_enabled()
            and (x.requires_grad or self.weight.requires_grad)
        )
        dilation = 2 if _prefers_thnn(x) and not _too_small(x, self.groups) and not slow else 1
        return F.conv2d(x, self.weight, self.bias, dilation=dilation, groups=self.groups)


def _prefers_thnn(x: Tensor) -> bool:
    """Whether PyTorch prefers THNN to oneDNN for ``x`` in channels_last and a 1x1 kernel."""
    return (
        not isinstance(x, Proxy)
        and x.is_cpu
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
    """Whether PyTorch keeps ``x`` from oneDNN whatever the dilation: the last condition of use_mkldnn."""
    return groups == 1 and x.size(0) == 1 and x.numel() <= 20480
