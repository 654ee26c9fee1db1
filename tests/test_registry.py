"""mixdet's classes resolve by their prefix from anywhere."""

import json
import subprocess
import sys

import pytest
import torch
from helpers import detector_batch, needs_torch
from mmengine.config import Config
from mmengine.registry import Registry

from mixdet import registry
from mixdet.registry import MODELS, TASK_UTILS

pytestmark = pytest.mark.slow

RETINANET = """
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
{imports}
model = dict(
    backbone=dict(_delete_=True, type='mixdet.MixNet', arch='s'),
    neck=dict(in_channels=[24, 40, 120, 200]),
)
"""
NAMES = ['MixNet', 'MobileNetV1', 'MobileNetV2', 'MixConv2d', 'SSDLite', 'SSDLiteNeck', 'SSDLiteHead']
# where each registry may look for its classes: networks need no room that trains, reports or exports
ROOMS = {
    'MODELS': {'layers', 'backbones', 'ssdlite'},
    'TASK_UTILS': {'ssdlite'},
    'DATASETS': {'datasets'},
    'TRANSFORMS': {'datasets'},
    'METRICS': {'evaluation'},
    'HOOKS': {'datasets', 'engine', 'weights', 'deploy', 'report'},
    'OPTIM_WRAPPERS': {'engine'},
    'RUNNERS': {'engine'},
}


def in_a_fresh_process(code):
    """What ``code`` prints last, as JSON, in a Python that has imported nothing yet."""
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_names_are_the_api():
    for name in NAMES:
        assert MODELS.get(f'mixdet.{name}').__module__.startswith('mixdet.')
    assert TASK_UTILS.get('mixdet.SSDLiteAnchorGenerator') is not None


def test_the_prefix_alone_imports():
    code = f"""
import json
from mmengine.registry import MODELS
print(json.dumps([MODELS.get(f'mixdet.{{name}}').__name__ for name in {NAMES}]))
"""
    assert in_a_fresh_process(code) == NAMES


def test_building_a_mixnet_imports_no_room_above_ssdlite():
    code = """
import json, sys
from mmengine.registry import MODELS
MODELS.build(dict(type='mixdet.MixNet'))
print(json.dumps(sorted({name.split('.')[1] for name in sys.modules if name.startswith('mixdet.')})))
"""
    below = ['backbones', 'compat', 'errors', 'layers', 'registry', 'ssdlite', 'text', 'version']
    assert in_a_fresh_process(code) == below


def test_registries_name_only_their_rooms():
    registries = {name: value for name, value in vars(registry).items() if isinstance(value, Registry)}
    assert all(value.scope == 'mixdet' for value in registries.values())
    rooms = {name: {module.split('.')[1] for module in value._locations} for name, value in registries.items()}
    assert rooms == ROOMS


@pytest.mark.parametrize('imports', ['', "custom_imports = dict(imports=['mixdet'])"], ids=['plain', 'custom_imports'])
def test_mixnet_in_mmdets_retinanet(tmp_path, imports):
    (tmp_path / 'c.py').write_text(RETINANET.format(imports=imports))
    model = MODELS.build(Config.fromfile(tmp_path / 'c.py').model)
    assert type(model).__name__ == 'RetinaNet' and type(model.backbone).__module__ == 'mixdet.backbones.mixnet'
    data = model.data_preprocessor(detector_batch((128, 128), num_classes=80), training=True)
    loss = sum(sum(value) for value in model.loss(data['inputs'], data['data_samples']).values())
    loss.backward()
    assert torch.isfinite(loss) and all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ('module', 'heavy'),
    [
        ('mixdet', ['mmdet', 'mmcv']),
        # most of a second of every tool's start; PyTorch 2.1 imports them itself with torch.distributed.fsdp
        pytest.param('mixdet.layers', ['torch._dynamo', 'triton'], marks=needs_torch('2.4')),
    ],
)
def test_importing_leaves_heavy_packages_alone(module, heavy):
    code = f'import json, sys, {module}; print(json.dumps([name for name in {heavy} if name in sys.modules]))'
    assert in_a_fresh_process(code) == []
