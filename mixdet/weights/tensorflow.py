"""The names that TensorFlow gives to the layers of our networks, and its tensor layouts.

Sources: TF-slim's mobilenet_v1.py and mobilenet_v2.py, the TF Object Detection API's feature_map_generators.py and
convolutional_keras_box_predictor.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Optional

import numpy as np
from mmcv.cnn import ConvModule

from mixdet.backbones import MobileNetV1, MobileNetV2
from mixdet.backbones.base import StagedBackbone
from mixdet.errors import UserError
from mixdet.layers import DepthwiseSeparable, InvertedResidual, MixConvNormAct
from mixdet.ssdlite import SSDLite
from mixdet.weights.filling import ArrayFunction, Entry

BATCH_NORM = {'weight': 'gamma', 'bias': 'beta', 'running_mean': 'moving_mean', 'running_var': 'moving_variance'}
EXTRA_CHANNELS = (512, 256, 256, 128)
COCO_IDS = 90
# ids of COCO's paper that its 80 classes do not use
UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
USED_IDS = tuple(i for i in range(1, COCO_IDS + 1) if i not in UNUSED_IDS)


def backbone_entries(backbone: StagedBackbone, root: str = '') -> Iterator[Entry]:
    """Entries of a MobileNetV1 or MobileNetV2 whose variables' names begin with ``root``.

    Raises:
        ValueError: on any other backbone, of which there are no such weights.
    """
    if isinstance(backbone, MobileNetV1):
        yield from _conv_block(backbone.stem[0], f'{root}MobilenetV1/Conv2d_0')
        separables = (module for module in backbone.modules() if isinstance(module, DepthwiseSeparable))
        for i, layer in enumerate(separables, start=1):
            yield from _conv_block(layer.depthwise, f'{root}MobilenetV1/Conv2d_{i}_depthwise')
            yield from _conv_block(layer.pointwise, f'{root}MobilenetV1/Conv2d_{i}_pointwise')
    elif isinstance(backbone, MobileNetV2):
        yield from _conv_block(backbone.stem[0], f'{root}MobilenetV2/Conv')
        residuals = (module for module in backbone.modules() if isinstance(module, InvertedResidual))
        for i, block in enumerate(residuals):
            scope = f'{root}MobilenetV2/expanded_conv' + (f'_{i}' if i else '')
            if block.expand is not None:
                yield from _conv_block(block.expand, f'{scope}/expand')
            yield from _conv_block(block.depthwise, f'{scope}/depthwise')
            yield from _conv_block(block.project, f'{scope}/project')
        if backbone.head is not None:
            yield from _conv_block(backbone.head, f'{root}MobilenetV2/Conv_1')
    else:
        raise ValueError(f'{type(backbone).__name__} has no TensorFlow weights')


def count_class_ids(tensors: Mapping[str, np.ndarray]) -> int:
    """How many classes an SSDLite of the TF Object Detection API was trained on: the outputs without the background.

    COCO's 90 where there is no box predictor, so that ``fill`` names all that is missing.

    Raises:
        UserError: if the number of class scores does not fit that of the anchors.
    """
    names = [f'BoxPredictor_0/{name}/biases' for name in ('ClassPredictor', 'BoxEncodingPredictor')]
    if not all(name in tensors for name in names):
        return COCO_IDS
    outputs, anchors = tensors[names[0]].size, tensors[names[1]].size // 4
    if not anchors or outputs % anchors or outputs // anchors < 2:
        raise UserError(f'{outputs} class scores ({names[0]}) do not belong to {anchors} anchors ({names[1]})')
    return outputs // anchors - 1


def ssdlite_entries(detector: SSDLite, class_ids: Sequence[int], total: int = COCO_IDS) -> Iterator[Entry]:
    """Entries of an SSDLite of the TF Object Detection API.

    Args:
        detector: the network to fill.
        class_ids: the ids of its classes, in order, counted from 1.
        total: how many ids the weights have.
    """
    yield from backbone_entries(detector.backbone, 'FeatureExtractor/')
    v1 = isinstance(detector.backbone, MobileNetV1)
    stem = 'FeatureExtractor/' + ('MobilenetV1/Conv2d_13_pointwise' if v1 else 'MobilenetV2/layer_19')
    for i, (layer, channels) in enumerate(zip(detector.neck.extra_layers, EXTRA_CHANNELS), start=2):
        yield from _conv_block(layer[0], f'{stem}_1_Conv2d_{i}_1x1_{channels // 2}')
        yield from _conv_block(layer[1], f'{stem}_2_Conv2d_{i}_3x3_s2_{channels}_depthwise')
        yield from _conv_block(layer[2], f'{stem}_2_Conv2d_{i}_3x3_s2_{channels}')
    columns = [*class_ids, 0]  # TensorFlow has the background first, MMDetection last
    for i, (cls, reg) in enumerate(zip(detector.bbox_head.cls_convs, detector.bbox_head.reg_convs)):
        for branch, name, order, outputs in (
            (cls, 'ClassPredictor', columns, total + 1),
            (reg, 'BoxEncodingPredictor', [1, 0, 3, 2], 4),  # ty, tx, th, tw
        ):
            scope = f'BoxPredictor_{i}/{name}'
            yield from _conv_block(branch[0], f'{scope}_depthwise')
            yield Entry(branch[1].weight, f'{scope}/weights', _pick(order, outputs, then=_pointwise))
            yield Entry(branch[1].bias, f'{scope}/biases', _pick(order, outputs))


def _conv_block(block: ConvModule, scope: str) -> Iterator[Entry]:
    """Convolution and batch-norm of a ConvNormAct or MixConvNormAct, whose variables are below ``scope``."""
    if isinstance(block, MixConvNormAct):
        yield Entry(block.conv, f'{scope}/depthwise_weights', _depthwise)
    else:
        yield Entry(block.conv.weight, f'{scope}/weights', _pointwise)
    for ours, theirs in BATCH_NORM.items():
        yield Entry(getattr(block.norm, ours), f'{scope}/BatchNorm/{theirs}')


def _pointwise(weights: np.ndarray) -> np.ndarray:
    """(H, W, in, out) to (out, in, H, W)."""
    return weights.transpose(3, 2, 0, 1)


def _depthwise(weights: np.ndarray) -> np.ndarray:
    """(H, W, in, multiplier) to (in * multiplier, 1, H, W)."""
    height, width, channels, multiplier = weights.shape
    return weights.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)


def _pick(order: Sequence[int], total: int, then: Optional[ArrayFunction] = None) -> ArrayFunction:
    """A function that takes those of each anchor's ``total`` outputs (the last axis) that are in ``order``."""

    def convert(values: np.ndarray) -> np.ndarray:
        anchors = values.reshape(*values.shape[:-1], -1, total)
        picked = anchors[..., list(order)].reshape(*values.shape[:-1], -1)
        return then(picked) if then else picked

    return convert
