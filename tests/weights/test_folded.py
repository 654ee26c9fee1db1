import copy

import numpy as np
import pytest
import torch
from helpers import shared_path
from torch import nn

from mixdet.weights.conversions import convert
from mixdet.weights.folded import folded_norms, restore_statistics


def trained_network():
    """Convolutions and batch-norms with statistics that fit the inputs of ``images``."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6, eps=1e-3, momentum=1.0), nn.ReLU6(),
        nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4, eps=1e-3, momentum=1.0), nn.ReLU6(),
        nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5, eps=1e-3, momentum=1.0),
    )  # fmt: skip
    for norm in model[1::3]:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
    with torch.no_grad():
        model(images())
    return model.eval()


def images():
    return torch.randn(16, 3, 21, 21, generator=torch.Generator().manual_seed(1)) * 2 + 1


def fold(conv, norm, var):
    """Fold ``norm`` into ``conv`` as exporters do, and leave it with mean 0 and variance ``var``."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    with torch.no_grad():
        conv.weight.mul_(scale.view(-1, 1, 1, 1))
        norm.bias.add_(scale * (conv.bias - norm.running_mean))
        conv.bias.zero_()
        norm.running_mean.zero_()
        norm.running_var.fill_(var)
        norm.weight.fill_((var + norm.eps) ** 0.5)


def difference(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize('var', [1.0, 1 - 1e-3])  # the scale undoes eps, or the variance does
def test_the_function_stays_and_training_keeps_it(var):
    original = trained_network()
    folded = copy.deepcopy(original)
    for i in (0, 6):  # the one in the middle keeps its statistics
        fold(folded[i], folded[i + 1], var=var)
    with torch.no_grad():
        expected = original(images())
        assert difference(folded(images()), expected) < 1e-5
        assert difference(copy.deepcopy(folded).train()(images()), expected) > 0.3  # what folding does to training
        assert list(folded_norms(folded)) == ['1', '7']

        assert restore_statistics(folded, lambda: [folded(part) for part in images().split(6)]) == ['1', '7']
        assert difference(folded(images()), expected) < 1e-5
        # PyTorch's running variance, of the one in the middle, is that of a sample
        assert difference(copy.deepcopy(folded).train()(images()), expected) < 1e-3
    assert folded_norms(folded) == {}
    first = folded[0](images())
    torch.testing.assert_close(folded[1].running_mean, first.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(folded[1].running_var, first.var((0, 2, 3), correction=0), rtol=1e-4, atol=1e-5)
    assert torch.equal(folded[4].running_mean, original[4].running_mean)


def test_layers_that_were_never_trained_are_not_folded():
    fresh = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.BatchNorm1d(3), nn.BatchNorm2d(4, affine=False))
    nn.init.zeros_(fresh[1].weight)  # as the last one of a residual block
    fresh.add_module('untracked', nn.BatchNorm2d(2, track_running_stats=False))
    assert folded_norms(fresh) == {}
    # merged scale and shift, as the weights of Caffe and Detectron have them
    merged = nn.BatchNorm2d(2)
    with torch.no_grad():
        merged.weight.copy_(torch.tensor([0.3, 2.0]))
    assert list(folded_norms(nn.Sequential(merged))) == ['0']
    with torch.no_grad():
        merged.running_mean[1] = 1e-3
    assert folded_norms(nn.Sequential(merged)) == {}


def test_a_layer_that_does_not_run_or_overflows_stays_folded():
    model = nn.ModuleDict(dict(used=nn.BatchNorm2d(2), unused=nn.BatchNorm2d(2), broken=nn.BatchNorm2d(2)))
    for norm in model.values():
        nn.init.ones_(norm.bias)
    inputs = torch.full((2, 2, 3, 3), float('inf'))

    def run():
        model['used'](torch.randn(4, 2, 3, 3))
        model['broken'](inputs)

    model.train()
    assert restore_statistics(model, run) == ['used']
    assert list(folded_norms(model)) == ['unused', 'broken'] and model['used'].training


def test_a_channel_that_never_varies_keeps_its_value():
    norm = nn.BatchNorm2d(2, eps=1e-3).eval()
    nn.init.constant_(norm.bias, 0.5)
    x = torch.stack([torch.full((3, 3), 2.0), torch.arange(9.0).view(3, 3)])[None]
    expected = norm(x).detach()
    assert restore_statistics(norm, lambda: norm(x)) == ['']
    torch.testing.assert_close(norm(x), expected)
    assert norm.running_var[0] == 0 and float(norm.running_var[1]) == pytest.approx(20 / 3)


@pytest.mark.slow
def test_tensorflows_coco_detector():
    source = shared_path('weights', 'ssdlite_mobilenet_v2_coco.npz')
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (50, 60, 3), dtype=np.uint8) for _ in range(2)]
    meta = convert(source, 'ssdlite_mobilenetv2')['meta']
    assert len(meta['folded']) == 64 and meta['restored'] == []
    assert meta['expects'] == dict(padding='same', eps=1e-3, mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True)
    checkpoint = convert(source, 'ssdlite_mobilenetv2', images=images)
    assert checkpoint['meta']['folded'] == [] and checkpoint['meta']['restored'] == meta['folded']
    variances = [value for name, value in checkpoint['state_dict'].items() if name.endswith('running_var')]
    assert len(variances) == 76 and not any(torch.all(value == 1) for value in variances)
