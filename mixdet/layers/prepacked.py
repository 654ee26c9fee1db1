"""Convolutions for inference through oneDNN, with weights packed once and the activation fused."""

import functools
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixdet.layers import implementations
from mixdet.layers.implementations import exporting, is_compiling

ACTIVATIONS = {**implementations.ACTIVATIONS, 'silu': nn.SiLU}  # activations that the layer can apply to its result
# the operator's last three arguments for each activation: name, bounds, algorithm
ONEDNN_ACTIVATIONS: dict[Optional[str], tuple[str, list[float], str]] = {
    None: ('none', [], ''),
    'relu': ('relu', [], ''),
    'relu6': ('hardtanh', [0.0, 6.0], ''),
    'silu': ('swish', [], ''),
}


@functools.cache
def _available() -> bool:
    """Whether PyTorch has oneDNN, the operator, and the autocast queries of 2.4."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, '_convolution_pointwise')
        and hasattr(torch, 'get_autocast_dtype')
    )


class PrepackedConv2d(nn.Conv2d):
    """An ``nn.Conv2d`` for inference with a fused activation; shapes (N, C, H, W) -> (N, C', H', W').

    PyTorch packs the weights for oneDNN at every call, and passes over the result again for an activation. On a CPU,
    with float32 in channels_last, this layer keeps the packed weights, and oneDNN applies the activation while it
    writes the result (``mkldnn::_convolution_pointwise``, which torch.compile uses for frozen convolutions). In all
    other cases, and in exports and compilations, it is ``F.conv2d`` followed by the activation.

    Parameters are those of ``nn.Conv2d``. The packed weights are neither copied nor saved with the layer. They are
    packed again when the weight has been replaced or written to, ``load_state_dict`` included, but not when it has been
    written to through ``.data``, which leaves no trace: load a network's weights before fusing it.
    """

    activation: Optional[str] = None  # a key of ACTIVATIONS
    _packed: Optional[tuple[tuple[int, int], Tensor]] = None  # which weight, and the packed one

    @classmethod
    def take_over(cls, conv: nn.Conv2d) -> None:
        """Turn an ``nn.Conv2d`` into this class in place: the same object, with its weights and hooks."""
        conv.__class__ = cls

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        if self._suits_onednn(x):
            return torch.ops.mkldnn._convolution_pointwise(
                x, self._pack(x), self.bias, *self._geometry(), *ONEDNN_ACTIVATIONS[self.activation]
            )
        out = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return getattr(F, self.activation)(out) if self.activation else out

    def _geometry(self) -> tuple[Any, ...]:
        return self.padding, self.stride, self.dilation, self.groups

    def _suits_onednn(self, x: Tensor) -> bool:
        return (
            not is_compiling()
            and not exporting()
            and _available()
            and type(x) is Tensor  # not a compiler's fake or functional tensor
            and x.is_cpu
            and x.dtype == self.weight.dtype == torch.float32
            and not self.weight.is_inference()  # such a tensor has no version counter
            and x.dim() == 4
            and x.is_contiguous(memory_format=torch.channels_last)
            and not x.is_contiguous()
            and x.numel() > 0
            and not (torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad))
            and not torch.is_autocast_enabled('cpu')
            and torch._C._get_mkldnn_enabled()
        )

    def _pack(self, x: Tensor) -> Tensor:
        """The packed weights, for inputs of the size of ``x``; oneDNN accepts them for other sizes too."""
        weight = self.weight
        source = (weight.data_ptr(), weight._version)
        if self._packed is None or self._packed[0] != source:
            pack: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # its stub lacks the last argument
            self._packed = (source, pack(weight.to_mkldnn(), *self._geometry(), list(x.shape)))
        return self._packed[1]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != '_packed'}
