"""MixConv in somebody else's backbone, by config."""

import copy
from typing import Optional, Union

from mmengine.model import BaseModule
from torch import Tensor

from mixdet.layers import Where, mix_depthwise
from mixdet.layers.mixconv import KernelSizes, Split
from mixdet.registry import MODELS


@MODELS.register_module()
class MixDepthwise(BaseModule):
    """A backbone whose depthwise convolutions are MixConv (see :func:`mixdet.layers.mix_depthwise`).

    ``dict(type='mixdet.MixDepthwise', backbone=dict(type='MobileNetV2', ...), kernel_sizes=(3, 5, 7))``. Images and
    features are those of ``backbone``, as are attributes that this class has not. Its ``init_cfg`` is obeyed: weights
    that it loads are those of the unchanged network, and are grown into the larger kernels.

    Args:
        backbone: config of any registered backbone.
        kernel_sizes, split, where, allow_crop: as ``mix_depthwise`` takes them.

    Raises:
        ValueError: if the backbone has no such depthwise convolution.
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
        self._options = dict(kernel_sizes=kernel_sizes, split=split, where=where, allow_crop=allow_crop)
        self.backbone = MODELS.build(backbone)
        self.mixed_layers = tuple(mix_depthwise(self.backbone, **self._options))

    def init_weights(self) -> None:
        """Initialise, or load, the unchanged network and grow its kernels."""
        original = MODELS.build(copy.deepcopy(self._config))
        if hasattr(original, 'init_weights'):
            original.init_weights()
        mix_depthwise(original, **self._options)
        self.backbone.load_state_dict(original.state_dict())
        self.is_init = True

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features of images (N, 3, H, W), as ``backbone`` gives them."""
        return self.backbone(x)

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == 'backbone':  # not built yet
                raise
            return getattr(self.backbone, name)
