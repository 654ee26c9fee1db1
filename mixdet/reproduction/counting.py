"""The rule by which the paper's Table 1 counts parameters and multiply-adds, beside the plain one."""

from mmengine.config import Config

from mixdet.benchmark.complexity import Complexity, count_complexity
from mixdet.registry import MODELS

CONVENTIONS = ('real', 'paper')
PAPER_CLASSES = 90  # COCO's category ids, 91 outputs with the background
PAPER_LEAVES_OUT = 'bbox_head.reg_convs'


def count_config(cfg: Config, input_size: tuple[int, int] = (320, 320), convention: str = 'real') -> Complexity:
    """Count the detector of ``cfg`` by one of two conventions.

    'real' counts everything that a user of the config trains. 'paper' is the rule that reproduces all twenty size
    figures of the paper's Table 1 to the last digit (the paper does not state it; it was found by fitting): weights of
    convolutions only, 91 class outputs, and without the box branch.

    Raises:
        ValueError: on another convention, or 'paper' for a detector that is not SSDLite.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f'convention={convention!r}: must be one of {CONVENTIONS}')
    model_cfg = Config(dict(model=cfg.model)).model
    if convention == 'real':
        return count_complexity(MODELS.build(model_cfg), input_size)
    if model_cfg.get('bbox_head', {}).get('type') != 'mixdet.SSDLiteHead':
        raise ValueError(
            "convention='paper' is defined for mixdet.SSDLiteHead only, the network of the paper's Table 1"
        )
    model_cfg.bbox_head.num_classes = PAPER_CLASSES
    layers = count_complexity(MODELS.build(model_cfg), input_size).layers
    layers = tuple(layer for layer in layers if not layer.name.startswith(PAPER_LEAVES_OUT))
    return Complexity(sum(layer.weights for layer in layers), sum(layer.macs for layer in layers), layers)
