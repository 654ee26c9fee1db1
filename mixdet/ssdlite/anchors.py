"""SSDLite's anchors."""

import math
from typing import Optional, Union

import torch
from torch import Tensor

from mixdet.registry import TASK_UTILS

RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)
# (scale, ratio) of the finest level, as the TF Object Detection API has them with reduce_boxes_in_lowest_layer
FINEST_LEVEL = ((0.1, 1.0), (0.2, 2.0), (0.2, 0.5))


@TASK_UTILS.register_module()
class SSDLiteAnchorGenerator:
    """The anchors of the TF Object Detection API's SSD (multiple_grid_anchor_generator.py, create_ssd_anchors).

    Level k has the scale s_k, spaced evenly from ``min_scale`` to ``max_scale``; an anchor of scale s and ratio r is
    s * sqrt(r) wide and s / sqrt(r) high, times the shorter side of the input (px). The finest level has 3 anchors per
    cell: (scale 0.1, ratio 1), (0.2, 2), (0.2, 1/2). Every other level has 6: ratios 1, 2, 1/2, 3 and 0.3333 at s_k,
    and ratio 1 at sqrt(s_k * s_k+1). Centres are (i + 0.5) / grid times the input's size, boxes are not clipped, and
    their order is row, column, anchor.

    Unlike MMDetection's generators, it is given the size of the input instead of strides, which are not whole pixels
    at sizes such as 300; ``SSDLiteHead`` passes the actual size.

    Args:
        num_levels: number of feature levels.
        min_scale, max_scale: scale of the finest and the coarsest level.
    """

    def __init__(self, num_levels: int = 6, min_scale: float = 0.2, max_scale: float = 0.95) -> None:
        if num_levels < 2:
            raise ValueError(f'num_levels={num_levels}: SSDLite has at least 2 levels')
        step = (max_scale - min_scale) / (num_levels - 1)
        scales = [min_scale + step * level for level in range(num_levels)] + [1.0]
        self.levels: list[tuple[tuple[float, float], ...]] = [FINEST_LEVEL]
        for scale, next_scale in zip(scales[1:-1], scales[2:]):
            self.levels.append((*((scale, ratio) for ratio in RATIOS), (math.sqrt(scale * next_scale), 1.0)))

    @property
    def num_levels(self) -> int:
        """Number of feature levels."""
        return len(self.levels)

    @property
    def num_base_priors(self) -> list[int]:
        """Anchors per cell on each level."""
        return [len(level) for level in self.levels]

    def grid_priors(
        self,
        featmap_sizes: list[tuple[int, int]],
        image_size: tuple[int, int],
        dtype: torch.dtype = torch.float32,
        device: Optional[Union[torch.device, str]] = None,
    ) -> list[Tensor]:
        """Anchors (H_i * W_i * A_i, 4) of each level as x1, y1, x2, y2 in px.

        Args:
            featmap_sizes: (H_i, W_i) of each level.
            image_size: (height, width) of the network's input, px.
            dtype, device: of the result.

        Raises:
            ValueError: if there are not as many feature maps as levels.
        """
        if len(featmap_sizes) != self.num_levels:
            raise ValueError(f'{len(featmap_sizes)} feature maps for an anchor generator of {self.num_levels} levels')
        priors = []
        for (rows, columns), level in zip(featmap_sizes, self.levels):
            base = torch.tensor([(s * math.sqrt(r), s / math.sqrt(r)) for s, r in level], dtype=torch.float64)
            y = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows * image_size[0]
            x = (torch.arange(columns, dtype=torch.float64) + 0.5) / columns * image_size[1]
            centres = torch.stack(torch.meshgrid(x, y, indexing='xy'), dim=-1).view(-1, 1, 2)
            half = base * min(image_size) / 2
            boxes = torch.cat([centres - half, centres + half], dim=-1).view(-1, 4)
            priors.append(boxes.to(device=device, dtype=dtype))
        return priors
