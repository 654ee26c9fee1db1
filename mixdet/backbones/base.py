"""What the three backbones share: stages, outputs, freezing."""

from collections.abc import Sequence
from typing import Any, Optional, Union

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mixdet.layers import ConvNormAct, DepthwiseSeparable, InvertedResidual, parse_kernel_sizes
from mixdet.layers.mixconv import KernelSizes

Block = Union[DepthwiseSeparable, InvertedResidual]
EXPANSION = 'expansion'
HEAD = 'head'


class StagedBackbone(BaseModule):
    """A stem of stride 2 and four stages of stride 4, 8, 16 and 32, as detectors know them from ResNet.

    Outputs are chosen by ``out_indices``: 0-3 are the last features of stages of stride 4-32 (the numbers that
    MMDetection's ResNet configs use); ``'expansion'`` is the expansion of the first stride-32 block, after its 1x1
    convolution and activation and before its depthwise convolution (stride 16); ``'head'`` is the 1x1 convolution
    that ends the classification network (stride 32). SSDLite takes ``('expansion', 'head')`` where a network has them,
    as the TensorFlow Object Detection API does. Stages beyond the deepest output are not built.

    Attributes:
        out_channels (tuple[int]): channels of each output.
        out_strides (tuple[int]): stride of each output, px.

    Args:
        stem: first convolution, stride 2.
        blocks: all blocks in order; each block of stride 2 begins a stage, and those before the first belong to the
            stem.
        head: the final 1x1 convolution, or None where the network has none or it is not among the outputs.
        out_indices: the outputs, in this order.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and the first n stages; frozen parameters get no
            gradient and frozen batch-norms keep their statistics.
        norm_eval: keep the statistics of every batch-norm fixed while training.
        init_cfg: as everywhere in MMEngine; None keeps the initialisation of the layers (He-normal).

    Raises:
        ValueError: if the network has no such output, or ``frozen_stages`` is out of range.
    """

    has_head = True  # whether the network ends with a 1x1 convolution
    stages: Any  # an nn.ModuleList of nn.Sequential, which has no type for what it holds

    def __init__(
        self,
        stem: nn.Module,
        blocks: Sequence[Block],
        head: Optional[ConvNormAct],
        out_indices: Sequence[Union[int, str]],
        frozen_stages: int,
        norm_eval: bool,
        init_cfg: Optional[Union[dict, list]],
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        starts = [i for i, block in enumerate(blocks) if block.stride == 2]
        stages = [blocks[start:end] for start, end in zip(starts, [*starts[1:], len(blocks)])]
        last_stage_start = stages[-1][0]
        outputs: dict[Union[int, str], tuple[int, int]] = {
            i: (stage[-1].out_channels, 4 << i) for i, stage in enumerate(stages)
        }
        if isinstance(last_stage_start, InvertedResidual) and last_stage_start.expand is not None:
            outputs[EXPANSION] = (last_stage_start.expand.out_channels, 16)
        if head is not None:
            outputs[HEAD] = (head.out_channels, 32)

        self.out_indices = tuple(out_indices)
        unknown = [i for i in self.out_indices if i not in outputs]
        if unknown or not self.out_indices:
            names = (*outputs, HEAD) if self.has_head and HEAD not in outputs else tuple(outputs)
            raise ValueError(f'out_indices={self.out_indices}: {type(self).__name__} has the outputs {names}')
        if not -1 <= frozen_stages <= len(stages):
            raise ValueError(f'frozen_stages={frozen_stages}: must be between -1 (nothing) and {len(stages)}')
        self.out_channels = tuple(outputs[i][0] for i in self.out_indices)
        self.out_strides = tuple(outputs[i][1] for i in self.out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

        depth = max(len(stages) if isinstance(i, str) else i + 1 for i in self.out_indices)
        self.stem = nn.Sequential(stem, *blocks[: starts[0]])
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in stages[:depth])
        self.head = head if HEAD in self.out_indices else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features of images (N, 3, H, W): one (N, C_i, H / s_i, W / s_i) for each of ``out_indices``."""
        features: dict[Union[int, str], Tensor] = {}
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            if i == 3 and EXPANSION in self.out_indices:
                features[EXPANSION] = stage[0].expansion(x)
                x = stage[1:](stage[0].finish(x, features[EXPANSION]))
            else:
                x = stage(x)
            features[i] = x
        if self.head is not None:
            features[HEAD] = self.head(x)
        return tuple(features[i] for i in self.out_indices)

    def train(self, mode: bool = True) -> 'StagedBackbone':
        """Set training mode; frozen stages and, with ``norm_eval``, every batch-norm stay in evaluation mode."""
        super().train(mode)
        for module in [self.stem, *self.stages][: self.frozen_stages + 1]:
            module.eval().requires_grad_(False)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def layer_kernels(
    num_layers: int, kernel_sizes: KernelSizes, layer_kernel_sizes: Optional[dict[int, KernelSizes]]
) -> list[KernelSizes]:
    """Kernel sizes of each depthwise layer: ``kernel_sizes`` unless ``layer_kernel_sizes`` has an entry for the layer.

    Layers are counted from 1 at the input. Raises ValueError if there is no such layer or a size is not possible.
    """
    overrides = {int(layer): sizes for layer, sizes in (layer_kernel_sizes or {}).items()}
    unknown = sorted(set(overrides) - set(range(1, num_layers + 1)))
    if unknown:
        raise ValueError(f'layer_kernel_sizes names layers {unknown}: there are depthwise layers 1 to {num_layers}')
    for name, sizes in [
        ('kernel_sizes', kernel_sizes),
        *((f'layer_kernel_sizes[{i}]', s) for i, s in overrides.items()),
    ]:
        try:
            parse_kernel_sizes(sizes)
        except ValueError as error:
            raise ValueError(str(error).replace('kernel_size=', f'{name}=', 1)) from None
    return [overrides.get(layer, kernel_sizes) for layer in range(1, num_layers + 1)]
