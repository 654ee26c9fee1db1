"""timm's MixNets and torchvision's MobileNetV2: outputs and gradients against theirs."""

import pytest
import torch
from helpers import import_timm, shared_path

from mixdet.registry import MODELS
from mixdet.weights import fill
from mixdet.weights.pytorch import timm_entries, torchvision_entries
from mixdet.weights.readers import read_weights

pytestmark = pytest.mark.slow


def arrays(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def randomised(model):
    """Random weights and batch-norm statistics that do something."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    return model.double().eval()


def relative(a, b):
    return float(((a - b).abs().max() / b.abs().max()).detach())


@pytest.mark.parametrize('arch', ['s', 'm', 'l', 'xl'])
@pytest.mark.parametrize('padding', ['symmetric', 'same'])
def test_mixnet_equals_timms(arch, padding):
    timm = import_timm()
    torch.manual_seed(0)
    name = f'mixnet_{arch}'
    if padding == 'same' and arch == 'xl':  # timm has no TensorFlow XL
        peer = randomised(timm.create_model(name, pad_type='same'))
    else:
        peer = randomised(timm.create_model(name if padding == 'symmetric' else f'tf_{name}'))
    norm_cfg = dict(type='BN', eps=peer.bn1.eps)
    ours = MODELS.build(
        dict(type='mixdet.MixNet', arch=arch, padding=padding, norm_cfg=norm_cfg, out_indices=(0, 1, 2, 3, 'head'))
    )
    ours = ours.double().eval()
    entries = list(timm_entries(ours))
    assert fill(ours, entries, arrays(peer), allow=['classifier.*']) == ['classifier.weight', 'classifier.bias']

    image = torch.randn(2, 3, 96, 64, dtype=torch.double)
    x, theirs = peer.bn1(peer.conv_stem(image)), {}
    for stage, block in enumerate(peer.blocks):
        x = block(x)
        theirs[stage] = x
    # of timm's stages, which begin wherever the channels change, the last ones of stride 4, 8, 16 and 32
    theirs = [theirs[1], theirs[2], theirs[4], theirs[5], peer.bn2(peer.conv_head(x))]
    features = ours(image)
    assert len(features) == len(theirs)
    for mine, their in zip(features, theirs):
        assert relative(mine, their) <= 1e-5

    upstream = [torch.randn_like(feature) for feature in features]
    torch.autograd.backward(features, upstream)
    torch.autograd.backward(theirs, upstream)
    gradients = dict(peer.named_parameters())
    compared = 0
    for entry in entries:
        names = (entry.source,) if isinstance(entry.source, str) else entry.source
        if names[0] not in gradients:
            continue  # running statistics
        mine = entry.target.convs[0].weight.grad if hasattr(entry.target, 'convs') else entry.target.grad
        assert relative(mine, torch.cat([gradients[name].grad for name in names])) <= 1e-5, names
        compared += len(names)
    assert compared == len(gradients) - 2  # all but the classifier's


@pytest.mark.parametrize('kernel_sizes', [3, (3, 5, 7)])
def test_mobilenetv2_equals_torchvisions(kernel_sizes):
    """Compared with the network written out in plain functions."""
    torch.manual_seed(0)
    source = read_weights(shared_path('weights', 'mobilenet_v2-b0353104.pth')).tensors
    model = MODELS.build(
        dict(
            type='mixdet.MobileNetV2',
            kernel_sizes=kernel_sizes,
            norm_cfg=dict(type='BN', eps=1e-5),
            out_indices=('expansion', 'head'),
        )
    ).eval()
    unused = fill(model, torchvision_entries(model), source, allow=['classifier.*'])
    assert unused == ['classifier.1.weight', 'classifier.1.bias']
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        head = model(image)[1]
        expected = plain_mobilenet_v2({name: torch.from_numpy(value) for name, value in source.items()}, image)
    assert relative(head, expected) <= 1e-5


def plain_mobilenet_v2(weights, x):
    functional = torch.nn.functional

    def layer(x, conv, norm, stride=1, act=True):
        weight = weights[f'{conv}.weight']
        groups = x.shape[1] if weight.shape[1] == 1 and weight.shape[2] == 3 else 1
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2, groups=groups)
        parts = [weights[f'{norm}.{name}'] for name in ('running_mean', 'running_var', 'weight', 'bias')]
        x = functional.batch_norm(x, *parts)
        return functional.relu6(x) if act else x

    x = layer(x, 'features.0.0', 'features.0.1', stride=2)
    for i in range(1, 18):
        scope, inputs = f'features.{i}.conv', x
        stride = 2 if i in (2, 4, 7, 14) else 1
        last = 1 if i == 1 else 2
        if i > 1:
            x = layer(x, f'{scope}.0.0', f'{scope}.0.1')
        x = layer(x, f'{scope}.{last - 1}.0', f'{scope}.{last - 1}.1', stride=stride)
        x = layer(x, f'{scope}.{last}', f'{scope}.{last + 1}', act=False)
        x = x + inputs if stride == 1 and x.shape == inputs.shape else x
    return layer(x, 'features.18.0', 'features.18.1')
