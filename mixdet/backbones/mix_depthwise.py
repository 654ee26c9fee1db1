"""MixConv in any registered backbone, by config."""

import copy
from typing import Any, Optional, Union

from mmengine.model import BaseModule
from torch import Tensor

from mixdet.layers import Where, mix_depthwise
from mixdet.layers.mixconv import KernelSizes, Split
from mixdet.registry import MODELS


@MODELS.register_module()
class MixDepthwise(BaseModule):
    """A backbone with its depthwise convolutions replaced by MixConv (see :func:`mixdet.layers.mix_depthwise`).

    ``dict(type='mixdet.MixDepthwise', backbone=dict(type='MobileNetV2', ...), kernel_sizes=(3, 5, 7))``. Input and
    output are those of ``backbone``; other attributes are forwarded to it. An ``init_cfg`` of ``backbone`` is applied
    to the unchanged network, so it can load that network's weights, which are then grown into the larger kernels.

    Args:
        backbone: config of any registered backbone.
        kernel_sizes, split, where, allow_crop: see ``mix_depthwise``.

    Raises:
        ValueError: if the backbone has no such depthwise convolution, or one cannot be replaced.
    """

    def __init__(
        self,
        backbone: dict,
        kernel_sizes: KernelSizes = (3, 5, 7),
        split: Split = 'equal',
        where: Optional[Union[dict, Where]] = None,
        allow_crop: bool = False,
    ) -> None:
        super().__init__()
        self._config = copy.deepcopy(backbone)
        self._options: dict[str, Any] = dict(kernel_sizes=kernel_sizes, split=split, where=where, allow_crop=allow_crop)
        self.backbone = MODELS.build(backbone)
        self.mixed_layers = tuple(mix_depthwise(self.backbone, **self._options))

    def init_weights(self) -> None:
        """Initialise the unchanged network, or load its weights, and grow its kernels."""
        original = MODELS.build(copy.deepcopy(self._config))
        if hasattr(original, 'init_weights'):
            original.init_weights()
        mix_depthwise(original, **self._options)
        self.backbone.load_state_dict(original.state_dict())
        self.is_init = True

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features of images (N, 3, H, W), those of ``backbone``."""
        return self.backbone(x)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == 'backbone':  # not built yet
                raise
            return getattr(self.backbone, name)
