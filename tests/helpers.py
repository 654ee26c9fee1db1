"""What several tests use."""

import atexit
import contextlib
import functools
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from mixdet.compat.stack import is_at_least

ROOT = Path(__file__).resolve().parent.parent
TOOL_TIMEOUT = 600  # s


def needs_torch(version: str) -> pytest.MarkDecorator:
    """Mark a test of what PyTorch can do since ``version``; docs/support.md names what is missing before."""
    return pytest.mark.skipif(not is_at_least(torch.__version__, version), reason=f'needs PyTorch {version}')


def shared_path(*parts: str) -> Path:
    """A file of the maintainers' test data, found through MIXDET_SHARED; the test is skipped without it."""
    root = os.environ.get('MIXDET_SHARED')
    if not root:
        pytest.skip('MIXDET_SHARED is not set')
    path = Path(root, *parts)
    assert path.exists(), f'MIXDET_SHARED is set but {path} is not there'
    return path


@contextlib.contextmanager
def little_room(size: int) -> Iterator[None]:
    """Inside, this process can write no file longer than ``size`` bytes, as on a full disk: OSError 27."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def start_tool(name: str, *args, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """Run ``tools/NAME`` as a user does, in a new interpreter: where starting is what a test is about."""
    command = [sys.executable, str(ROOT / 'tools' / name), *map(str, args)]
    return subprocess.run(
        command, cwd=cwd, env=_tool_environment(env), capture_output=True, text=True, timeout=TOOL_TIMEOUT
    )


def run_tool(name: str, *args, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """Run ``tools/NAME`` in a process of its own, without the 3 to 5 s that its imports take.

    A server that has imported them once (``tool_server.py``) forks for each call. A fork has its own environment,
    folder, signals, registries and exit, as a new interpreter would; called in the process of the tests, a tool would
    leave all of these behind. Variables that are read by an import (``TRITON_INTERPRET``) need ``start_tool``.
    """
    if sys.platform != 'linux':  # elsewhere a fork of a process with torch in it is not to be relied on
        return start_tool(name, *args, cwd=cwd, **env)
    script = str(ROOT / 'tools' / name)
    with tempfile.TemporaryDirectory() as folder:
        output = {stream: Path(folder, stream) for stream in ('stdout', 'stderr')}
        for file in output.values():
            file.touch()
        request = dict(script=script, args=[str(arg) for arg in args], cwd=str(cwd), env=_tool_environment(env))
        request.update({stream: str(file) for stream, file in output.items()})
        server = _tool_server()
        server.stdin.write(json.dumps(request).encode() + b'\n')
        process = int(server.stdout.readline())
        if not select.select([server.stdout], [], [], TOOL_TIMEOUT)[0]:
            os.killpg(process, signal.SIGKILL)
        status = int(server.stdout.readline())
        texts = {stream: file.read_text() for stream, file in output.items()}
    return subprocess.CompletedProcess([script, *request['args']], status, **texts)


def _tool_environment(env: dict) -> dict:
    return {'OMP_NUM_THREADS': '2', **os.environ, **env}


@functools.cache
def _tool_server() -> subprocess.Popen:
    """The server of this process of the tests; ends with it."""
    command = [sys.executable, str(ROOT / 'tests/tool_server.py')]
    one_thread = {**os.environ, 'OMP_NUM_THREADS': '1'}
    server = subprocess.Popen(command, env=one_thread, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    @atexit.register
    def end():
        server.communicate()

    return server


def tiny_detector(**backbone) -> torch.nn.Module:
    """SSDLite on a quarter-width MobileNetV2 with 3 classes."""
    from mmengine.config import Config

    from mixdet.registry import MODELS

    cfg = Config.fromfile(ROOT / 'configs/_base_/models/ssdlite_mobilenetv2.py').model
    cfg.backbone.update(widen_factor=0.25, **backbone)
    cfg.neck.extra_channels = (32, 32, 32, 32)
    cfg.bbox_head.num_classes = 3
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    return model


def coco_checkpoint(folder: Path, size: int = 320) -> tuple[Path, Path]:
    """Config and checkpoint of TensorFlow's SSDLite-MobileNetV2, trained on COCO; the test is skipped without it."""
    from mixdet.weights.conversions import convert

    checkpoint = folder / 'coco.pth'
    if not checkpoint.exists():
        torch.save(convert(shared_path('weights', 'ssdlite_mobilenet_v2_coco.npz'), 'ssdlite_mobilenetv2'), checkpoint)
    return ROOT / f'configs/ssdlite_mobilenetv2/ssdlite_mobilenetv2-baseline3x3-tf-{size}_coco.py', checkpoint


def tiny_checkpoint(folder: Path) -> tuple[Path, Path]:
    """Config and checkpoint of an untrained SSDLite on a quarter-width MobileNetV2 with the demo set's classes."""
    from mmengine.config import Config

    from mixdet.registry import MODELS

    config, checkpoint = folder / 'tiny.py', folder / 'tiny.pth'
    config.write_text(
        f"_base_ = '{ROOT}/configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py'\n"
        "model = dict(backbone=dict(_delete_=True, type='mixdet.MobileNetV2', widen_factor=0.25,\n"
        "                           out_indices=('expansion', 'head'), kernel_sizes=(3, 5, 7)),\n"
        '             test_cfg=dict(max_per_img=10))\n'
    )
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    return config, checkpoint


def detector_batch(image_size=(96, 96), num_images=2, num_classes=3, seed=0) -> dict:
    """Random uint8 images with a few boxes each, as a data loader gives them."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    rng = np.random.default_rng(seed)
    height, width = image_size
    inputs, samples = [], []
    for i in range(num_images):
        inputs.append(torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8)))
        top_left = rng.uniform(0, 0.5, (4, 2)) * (width, height)
        sides = rng.uniform(0.2, 0.5, (4, 2)) * (width, height)
        sample = DetDataSample(
            metainfo=dict(
                img_id=i,
                img_path=f'{i}.jpg',
                img_shape=image_size,
                ori_shape=(height * 2, width * 2),
                scale_factor=(0.5, 0.5),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(np.hstack([top_left, top_left + sides])).float(),
            labels=torch.from_numpy(rng.integers(0, num_classes, 4)),
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def coco_of(images, categories, annotations):
    """pycocotools' COCO of some images (ids), categories (id: name) and annotations (image, category, box, crowd)."""
    import contextlib
    import io

    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = dict(
        images=[dict(id=i, height=100, width=100, file_name=f'{i}.jpg') for i in images],
        categories=[dict(id=i, name=name) for i, name in categories.items()],
        annotations=[
            dict(id=n + 1, image_id=image, category_id=category, bbox=box, area=box[2] * box[3], iscrowd=int(crowd))
            for n, (image, category, box, crowd) in enumerate(annotations)
        ],
    )
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def import_timm():
    """timm, imported with a stand-in for torchvision where that is not installed: timm's networks do not use it."""
    stand_ins = {}
    try:
        importlib.import_module('torchvision')
    except Exception:  # a torchvision built for another torch fails in its own ways
        for name in ('', '.transforms', '.transforms.functional', '.datasets', '.datasets.folder', '.ops', '.ops.misc'):
            module = stand_ins[f'torchvision{name}'] = MagicMock(__path__=[], __spec__=None)
            if name == '.ops.misc':
                module.FrozenBatchNorm2d = torch.nn.Module
    sys.modules.update(stand_ins)
    try:
        return pytest.importorskip('timm')
    finally:
        for name in stand_ins:
            del sys.modules[name]
