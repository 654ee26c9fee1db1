"""The twenty size figures of the paper's Table 1."""

import pytest
from helpers import ROOT
from mmengine.config import Config

from mixdet.reproduction.counting import CONVENTIONS, count_config
from mixdet.reproduction.paper import TABLE1

# millions and billions, unrounded, by the rule that reproduces the paper
UNROUNDED = {
    'mobilenetv1-baseline3x3': (5.1240, 1.3142),
    'mobilenetv1-depthwise5x5': (5.2033, 1.3773),
    'mobilenetv1-mixconv35': (5.1636, 1.3457),
    'mobilenetv1-depthwise7x7': (5.3224, 1.4719),
    'mobilenetv1-mixconv357': (5.2161, 1.3863),
    'mobilenetv2-baseline3x3': (4.3543, 0.7948),
    'mobilenetv2-depthwise5x5': (4.4685, 0.8700),
    'mobilenetv2-mixconv35': (4.4114, 0.8324),
    'mobilenetv2-depthwise7x7': (4.6397, 0.9827),
    'mobilenetv2-mixconv357': (4.4875, 0.8815),
}


@pytest.mark.parametrize('name', TABLE1)
def test_sizes_are_the_papers_to_the_last_printed_digit(name):
    (path,) = (ROOT / 'configs').glob(f'*/ssdlite_{name}_8xb*_coco.py')
    cost = count_config(Config.fromfile(path), convention='paper')
    params, macs = cost.params / 1e6, cost.macs / 1e9
    assert (round(params, 2), round(macs, 2)) == (TABLE1[name].params, TABLE1[name].macs)
    assert (round(params, 4), round(macs, 4)) == UNROUNDED[name]


@pytest.mark.parametrize('convention', CONVENTIONS)
def test_the_config_is_left_as_it_is_and_the_size_counts(convention):
    (path,) = (ROOT / 'configs').glob('*/ssdlite_mobilenetv2-baseline3x3_8xb*_coco.py')
    cfg = Config.fromfile(path)
    text = cfg.pretty_text
    small, wide = (count_config(cfg, size, convention) for size in ((160, 160), (160, 320)))
    assert cfg.pretty_text == text
    assert small.params == wide.params and wide.macs / small.macs == pytest.approx(2, rel=0.02)
    assert convention == 'real' or small.params == sum(layer.weights for layer in small.layers)
    assert small.macs == sum(layer.macs for layer in small.layers)


def test_the_papers_convention_is_for_ssdlite():
    cfg = Config(dict(model=dict(type='RetinaNet', bbox_head=dict(type='RetinaHead'))))
    with pytest.raises(ValueError, match='mixdet.SSDLiteHead only'):
        count_config(cfg, convention='paper')
    with pytest.raises(ValueError, match="convention='flops'"):
        count_config(cfg, convention='flops')
