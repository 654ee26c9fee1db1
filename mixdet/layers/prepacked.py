"""Convolutions of a network that only infers, as fast as oneDNN has them."""

import functools
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixdet.layers import implementations
from mixdet.layers.implementations import exporting, is_compiling

ACTIVATIONS = {**implementations.ACTIVATIONS, 'silu': nn.SiLU}  # that the layer can apply to its result
# the last three arguments of the operator: name, bounds, algorithm
IN_ONEDNN = {
    None: ('none', [], ''),
    'relu': ('relu', [], ''),
    'relu6': ('hardtanh', [0.0, 6.0], ''),
    'silu': ('swish', [], ''),
}


@functools.cache
def _available() -> bool:
    """Whether PyTorch has oneDNN, its operator, and says whether autocast is on (2.4)."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, '_convolution_pointwise')
        and hasattr(torch, 'get_autocast_dtype')
    )


class PrepackedConv2d(nn.Conv2d):
    """An ``nn.Conv2d`` for inference with an activation inside; shapes (N, C, H, W) -> (N, C', H', W').

    At every call PyTorch arranges the weights anew for oneDNN, and goes over the result once more for an activation. On
    a CPU, with float32 in channels_last, this layer keeps its weights arranged, and oneDNN applies the activation to
    what it has just computed (``mkldnn::_convolution_pointwise``, what torch.compile's freezing makes of a
    convolution). Anywhere else, and in exports and compilations, it is ``F.conv2d`` and then the activation.

    Parameters are those of ``nn.Conv2d``. The arranged weights are neither copied nor saved with the layer. They follow
    when the weight is replaced or written to, ``load_state_dict`` included, but not when it is written to through
    ``.data``, which leaves no trace: load a network's weights before it is fused.
    """

    activation: Optional[str] = None  # a key of ACTIVATIONS
    _arranged: Optional[tuple] = None

    @classmethod
    def take_over(cls, conv: nn.Conv2d) -> None:
        """Make an ``nn.Conv2d`` one of these: the same object, with its weights and hooks."""
        conv.__class__ = cls

    def forward(self, x: Tensor) -> Tensor:
        if self._suits_onednn(x):
            return torch.ops.mkldnn._convolution_pointwise(
                x, self._arrange(x), self.bias, *self._geometry(), *IN_ONEDNN[self.activation]
            )
        out = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return getattr(F, self.activation)(out) if self.activation else out

    def _geometry(self) -> tuple:
        return self.padding, self.stride, self.dilation, self.groups

    def _suits_onednn(self, x: Tensor) -> bool:
        return (
            not is_compiling()
            and not exporting()
            and _available()
            and type(x) is Tensor  # and none of a compiler's stand-ins
            and x.is_cpu
            and x.dtype == self.weight.dtype == torch.float32
            and not self.weight.is_inference()  # writing to such a tensor leaves no trace
            and x.dim() == 4
            and x.is_contiguous(memory_format=torch.channels_last)
            and not x.is_contiguous()
            and x.numel() > 0
            and not (torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad))
            and not torch.is_autocast_enabled('cpu')
            and torch._C._get_mkldnn_enabled()
        )

    def _arrange(self, x: Tensor) -> Tensor:
        """The weights as oneDNN wants them for ``x``; for other sizes it rearranges them if it has to."""
        weight = self.weight
        source = (weight.data_ptr(), weight._version)
        if self._arranged is None or self._arranged[0] != source:
            arranged = torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *self._geometry(), list(x.shape))
            self._arranged = (source, arranged)
        return self._arranged[1]

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != '_arranged'}
