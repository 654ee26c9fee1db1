"""The names that torchvision and timm give to the layers of our networks.

Sources: torchvision/models/mobilenetv2.py, timm/models/_efficientnet_blocks.py and _efficientnet_builder.py.
"""

from collections.abc import Iterator

from mmcv.cnn import ConvModule

from mixdet.backbones import MixNet, MobileNetV2
from mixdet.layers import ConvNormAct, InvertedResidual
from mixdet.weights.filling import Entry


def torchvision_entries(backbone: MobileNetV2) -> Iterator[Entry]:
    """Entries of torchvision's MobileNetV2 (symmetric padding, batch-norm eps 1e-5)."""
    yield from _conv_block(backbone.stem[0], 'features.0.0', 'features.0.1')
    blocks = (module for module in backbone.modules() if isinstance(module, InvertedResidual))
    for i, block in enumerate(blocks, start=1):
        layers, scope = 0, f'features.{i}.conv'
        for part in (block.expand, block.depthwise):
            if part is not None:
                yield from _conv_block(part, f'{scope}.{layers}.0', f'{scope}.{layers}.1')
                layers += 1
        yield from _conv_block(block.project, f'{scope}.{layers}', f'{scope}.{layers + 1}')
    if backbone.head is not None:
        yield from _conv_block(backbone.head, 'features.18.0', 'features.18.1')


def timm_entries(backbone: MixNet) -> Iterator[Entry]:
    """Entries of timm's ``mixnet_*`` (symmetric padding) and ``tf_mixnet_*`` (padding 'same', batch-norm eps 1e-3).

    timm begins a stage at every change of the number of channels, and splits grouped 1x1 convolutions like mixed ones.
    """
    yield from _conv_block(backbone.stem[0], 'conv_stem', 'bn1')
    stage, index, channels = -1, 0, 0
    for block in (module for module in backbone.modules() if isinstance(module, InvertedResidual)):
        stage, index = (stage, index + 1) if block.out_channels == channels else (stage + 1, 0)
        channels = block.out_channels
        scope = f'blocks.{stage}.{index}'
        if block.expand is None:
            names = [(block.depthwise, 'conv_dw'), (block.project, 'conv_pw')]
        else:
            names = [(block.expand, 'conv_pw'), (block.depthwise, 'conv_dw'), (block.project, 'conv_pwl')]
        for number, (part, name) in enumerate(names, start=1):
            yield from _conv_block(part, f'{scope}.{name}', f'{scope}.bn{number}', split=True)
        if block.se is not None:
            for conv, name in ((block.se.reduce, 'conv_reduce'), (block.se.expand, 'conv_expand')):
                for part_name, parameter in conv.named_parameters():
                    yield Entry(parameter, f'{scope}.se.{name}.{part_name}')
    if backbone.head is not None:
        yield from _conv_block(backbone.head, 'conv_head', 'bn2')


def _conv_block(block: ConvModule, conv: str, norm: str, split: bool = False) -> Iterator[Entry]:
    """Convolution and batch-norm of a ConvNormAct or MixConvNormAct.

    Args:
        block: the layer.
        conv, norm: the names of its convolution and batch-norm.
        split: whether each group of a convolution has a tensor of its own.
    """
    if isinstance(block, ConvNormAct):
        groups = block.conv.groups if split else 1
        yield Entry(
            block.conv.weight, tuple(f'{conv}.{i}.weight' for i in range(groups)) if groups > 1 else f'{conv}.weight'
        )
    elif split and len(block.conv.convs) > 1:
        for i, group in enumerate(block.conv.convs):
            yield Entry(group.weight, f'{conv}.{i}.weight')
    else:
        yield Entry(block.conv, f'{conv}.weight')
    for name in ('weight', 'bias', 'running_mean', 'running_var'):
        yield Entry(getattr(block.norm, name), f'{norm}.{name}')
