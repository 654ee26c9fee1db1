"""mixdet's classes resolve by their prefix from anywhere."""

import subprocess
import sys

import pytest
import torch
from helpers import detector_batch
from mmengine.config import Config

from mixdet.registry import MODELS, TASK_UTILS

RETINANET = """
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
{imports}
model = dict(
    backbone=dict(_delete_=True, type='mixdet.MixNet', arch='s'),
    neck=dict(in_channels=[24, 40, 120, 200]),
)
"""
NAMES = ['MixNet', 'MobileNetV1', 'MobileNetV2', 'MixConv2d', 'SSDLite', 'SSDLiteNeck', 'SSDLiteHead']


def test_names_are_the_api():
    for name in NAMES:
        assert MODELS.get(f'mixdet.{name}').__module__.startswith('mixdet.')
    assert TASK_UTILS.get('mixdet.SSDLiteAnchorGenerator') is not None


@pytest.mark.parametrize('name', NAMES)
def test_the_prefix_alone_imports(name):
    code = f"from mmengine.registry import MODELS; print(MODELS.get('mixdet.{name}').__name__)"
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.stdout.split()[-1:] == [name], done.stderr


@pytest.mark.parametrize('imports', ['', "custom_imports = dict(imports=['mixdet'])"], ids=['plain', 'custom_imports'])
def test_mixnet_in_mmdets_retinanet(tmp_path, imports):
    (tmp_path / 'c.py').write_text(RETINANET.format(imports=imports))
    model = MODELS.build(Config.fromfile(tmp_path / 'c.py').model)
    assert type(model).__name__ == 'RetinaNet' and type(model.backbone).__module__ == 'mixdet.backbones.mixnet'
    data = model.data_preprocessor(detector_batch((128, 128), num_classes=80), training=True)
    loss = sum(sum(value) for value in model.loss(data['inputs'], data['data_samples']).values())
    loss.backward()
    assert torch.isfinite(loss) and all(p.grad is not None for p in model.parameters())


def test_importing_mixdet_does_not_import_mmdet_or_mmcv():
    code = "import sys, mixdet; print([name for name in ('mmdet', 'mmcv') if name in sys.modules])"
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.stdout.strip().endswith('[]'), done.stdout + done.stderr


def test_importing_the_layers_does_not_import_torchs_compiler():
    # most of a second of every tool's start
    code = "import sys, mixdet.layers; print([name for name in ('torch._dynamo', 'triton') if name in sys.modules])"
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.stdout.strip().endswith('[]'), done.stdout + done.stderr
