import pytest
import torch

from mixdet.backbones.variants import all_variants, variants
from mixdet.registry import MODELS


def test_figures_of_the_paper():
    sweep = variants('mobilenetv1', 4)
    assert sweep == variants('mobilenetv1', 1)
    assert list(sweep) == [
        'baseline3x3', 'depthwise5x5', 'depthwise7x7', 'depthwise9x9', 'depthwise11x11', 'depthwise13x13',
        'mixconv35', 'mixconv357', 'mixconv3579', 'mixconv357911', 'mixconv35791113',
    ]  # fmt: skip
    assert len(variants('mobilenetv2', 5)) == 1 + 2 * 17 and len(variants('mobilenetv1', 5)) == 1 + 2 * 13
    assert variants('mobilenetv2', 5)['layer3-mixconv3579'] == dict(layer_kernel_sizes={3: (3, 5, 7, 9)})
    assert len(variants('mobilenetv2', 6)) == 1 + 3 * 5


@pytest.mark.parametrize(('network', 'cls'), [('mobilenetv1', 'MobileNetV1'), ('mobilenetv2', 'MobileNetV2')])
def test_every_variant_builds(network, cls):
    with torch.device('meta'):  # nothing to initialise
        for options in all_variants(network).values():
            MODELS.build(dict(type=f'mixdet.{cls}', **options))


@pytest.mark.parametrize('arguments', [('resnet', 4), ('mobilenetv2', 3)])
def test_there_are_no_others(arguments):
    with pytest.raises(ValueError, match='must be in'):
        variants(*arguments)
