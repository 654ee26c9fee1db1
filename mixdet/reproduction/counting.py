"""Two ways to count parameters and multiply-adds: what a user trains, and the rule of the paper's Table 1."""

import copy

from mmengine.config import Config

from mixdet.benchmark.complexity import Complexity, count_complexity
from mixdet.registry import MODELS

CONVENTIONS = ('real', 'paper')
PAPER_CLASSES = 90  # COCO's category ids, 91 outputs with the background
BOX_BRANCH = 'bbox_head.reg_convs'  # not counted by the paper


def count_config(cfg: Config, input_size: tuple[int, int] = (320, 320), convention: str = 'real') -> Complexity:
    """Count the detector of ``cfg`` by one of two conventions.

    'real' counts every parameter, convolution and linear layer of the detector as it is trained. 'paper' is the rule
    that reproduces all twenty size figures of the paper's Table 1 to the last printed digit: convolution weights only,
    91 class outputs, no box branch. The paper does not state its rule; this one was found by fitting.

    Args:
        cfg: a config with a ``model``.
        input_size: height and width of the image, px.
        convention: one of ``CONVENTIONS``.

    Raises:
        ValueError: on an unknown convention, or 'paper' for a detector that is not SSDLite.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f'convention={convention!r}: must be one of {CONVENTIONS}')
    model_cfg = copy.deepcopy(cfg.model)
    if convention == 'real':
        return count_complexity(MODELS.build(model_cfg), input_size)
    if model_cfg.get('bbox_head', {}).get('type') != 'mixdet.SSDLiteHead':
        raise ValueError(
            "convention='paper' is defined for mixdet.SSDLiteHead only, the network of the paper's Table 1"
        )
    model_cfg.bbox_head.num_classes = PAPER_CLASSES
    layers = count_complexity(MODELS.build(model_cfg), input_size).layers
    layers = tuple(layer for layer in layers if not layer.name.startswith(BOX_BRANCH))
    return Complexity(sum(layer.weights for layer in layers), sum(layer.macs for layer in layers), layers)
