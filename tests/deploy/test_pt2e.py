import sys

import numpy as np
import pytest
import torch
from torch import nn

from mixdet.deploy import pt2e


class Network(nn.Module):
    """A convolution with a ReLU6, one with a swish, one of a single pixel, and a plain one."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.gate, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = nn.functional.silu(self.second(nn.functional.relu6(self.first(x))))
        return self.last(x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid())


@pytest.fixture
def network():
    pytest.importorskip('torchao')
    return Network().eval().requires_grad_(False)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [rng.normal(0, 1, (1, 3, 12, 12)).astype(np.float32) for _ in range(4)]


def nodes(program, target):
    return [node for node in program.graph.nodes if target in str(node.target)]


def test_convolutions_of_more_than_a_pixel_are_quantised(network, images):
    example = torch.from_numpy(images[0])
    program = pt2e.quantized(network, example, images)
    expected, found = network(example), program(example)
    step = float(expected.max() - expected.min()) / 255
    assert 0 < float((found - expected).abs().max()) < 10 * step
    convolutions = nodes(program, 'conv2d')
    in_float = [node for node in convolutions if 'dequantize' not in str(node.args[1].target)]
    assert len(convolutions) == 4 and [node.meta['val'].shape[2:] for node in in_float] == [(1, 1)]
    assert len(nodes(program, 'dequantize_per_channel')) == 3
    # the ReLU6 is computed before its convolution's output is quantised
    (clipping,) = nodes(program, 'hardtanh') or nodes(program, 'relu6')
    assert clipping.args[0] in convolutions and 'quantize' in str(next(iter(clipping.users)).target)


def test_ranges_are_the_best_and_not_those_ever_seen(network, images, monkeypatch):
    """An image on which the network runs away leaves the levels to the others."""
    asked = []

    def ranges_of(tensors, swish, values):
        asked.append((list(tensors), set(swish), [len(each) for each in values(tensors)]))
        return whole(tensors, swish, values)

    whole = pt2e.ranges_of
    monkeypatch.setattr(pt2e, 'ranges_of', ranges_of)
    example = torch.from_numpy(images[0])
    usual = pt2e.quantized(network, example, images)
    tensors, swish, seen = asked[0]
    assert len(swish) == 1 and swish < set(tensors) and seen == [len(tensors)] * len(images)
    wild = pt2e.quantized(network, example, [*images, images[0] * 60])
    expected = network(example)
    error = [float((program(example) - expected).abs().max()) for program in (usual, wild)]
    assert error[1] < 5 * error[0]  # with the range ever seen it would be 60 times as large


def test_torchao_is_needed(network, images, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchao.quantization.pt2e', None)
    with pytest.raises(ImportError):
        pt2e.quantized(network, torch.from_numpy(images[0]), images)
