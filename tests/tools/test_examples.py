"""docs/examples find what the detector finds where mixdet and OpenCV are missing, and PyTorch but for ExecuTorch."""

import importlib.util
import re
import runpy
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from helpers import ROOT, coco_checkpoint, run_tool, shared_path
from PIL import Image

from mixdet import Detector
from mixdet.datasets.transforms import resize_bilinear
from mixdet.deploy.finish import finish
from mixdet.deploy.formats import FORMATS
from mixdet.deploy.formats.base import Thresholds

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / 'docs/examples'
# the example of each format, and its arguments before the image
PYTHON = {
    'onnx': ('detect_onnx.py', '{}'),
    'openvino': ('detect_openvino.py', '{}/model.xml', '{}/mixdet.json'),
    'ncnn': ('detect_ncnn.py', '{}/model', '{}/mixdet.json'),
    'tflite': ('detect_litert.py', '{}', '{}.json'),
    'executorch': ('detect_executorch.py', '{}', '{}.json'),
}
BLOCKED = {'mixdet', 'cv2', 'torch', 'mmdet', 'onnx'}
ALONE = """
import os, runpy, sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(',')))
sys.argv = sys.argv[2:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    """A folder, config and checkpoint, an image, and what the detector finds in it."""
    folder = tmp_path_factory.mktemp('examples')
    config, checkpoint = coco_checkpoint(folder, size=300)
    image = folder / 'image.ppm'
    Image.open(shared_path('data', 'coco-mini', 'val2017') / '000000000139.jpg').save(image)
    return folder, config, checkpoint, image, Detector(config, checkpoint)(image)


def exported(coco, name):
    """The path of the detector in a format, which is written once; the test is skipped without its packages."""
    folder, config, checkpoint, image, _ = coco
    row = FORMATS.get(name)
    if row is None:
        pytest.skip(f'there is no format {name}')
    for package in (*row.packages, row.runtime.replace('-', '_')):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'{package} is not installed')
    path = folder / f'coco{row.suffix}'
    if not path.exists():
        options = ('--format', name, '--out', path.name, '--images', image)
        done = run_tool('export.py', config, checkpoint, *options, cwd=folder)
        assert done.returncode == 0 and 'verified on 1 images' in done.stdout, done.stderr
    return path


def check(output, found):
    """Each detection has a line with its class and nearly its numbers."""
    lines = output.splitlines()
    assert len(lines) == len(found) > 5
    for one in found:  # OpenCV's fixed-point resize is a grey value off here and there
        numbers = [[float(value) for value in line[16:].split()] for line in lines if line[:16].strip() == one.name]
        assert min(max(abs(a - b) for a, b in zip(box, one.box)) for _, *box in numbers) < 1
        assert min(abs(score - one.score) for score, *_ in numbers) < 0.01


def run_alone(coco, name):
    path, image = exported(coco, name), coco[3]
    script, *arguments = PYTHON[name]
    blocked = BLOCKED - {'torch'} if name == 'executorch' else BLOCKED
    command = [sys.executable, '-c', ALONE, ','.join(blocked), str(EXAMPLES / script)]
    done = subprocess.run(
        [*command, *(argument.format(path) for argument in arguments), str(image)],
        cwd=coco[0],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize('name', PYTHON)
def test_python(coco, name):
    check(run_alone(coco, name), coco[-1])


def test_cpp(coco):
    """Its lines are those of the example in Python, up to the last digit."""
    openvino = pytest.importorskip('openvino.utils')
    for program in ('cmake', 'c++'):
        if not shutil.which(program):
            pytest.skip(f'{program} is not installed')
    folder, image, path = coco[0], coco[3], exported(coco, 'onnx')
    for command in (
        ['cmake', '-S', EXAMPLES / 'cpp', '-B', folder / 'build', f'-DOpenVINO_DIR={openvino.get_cmake_path()}'],
        ['cmake', '--build', folder / 'build'],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    program = folder / 'build/detect'
    done = subprocess.run([program, path, image], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check(done.stdout, coco[-1])
    numbers = [
        np.array([line[16:].split() for line in text.splitlines()], float)
        for text in (done.stdout, run_alone(coco, 'onnx'))
    ]
    assert np.abs(numbers[0] - numbers[1]).max(0).round(4) == pytest.approx([0, 0, 0, 0, 0], abs=0.11)
    assert np.abs(numbers[0][:, 0] - numbers[1][:, 0]).max() < 0.0011
    for arguments, reason in (((path,), 'usage: detect'), ((path, path), 'not a PPM'), ((image, image), 'model')):
        done = subprocess.run([program, *arguments], capture_output=True, text=True)
        assert done.returncode == 2 and re.search(f'^error: .*{reason}', done.stderr, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize('file', ['detection.py', 'detect_onnx.py'])
@pytest.mark.parametrize('size', [(300, 300), (90, 700)])
def test_pixels_are_resized_as_in_training(file, size):
    if file == 'detect_onnx.py':
        pytest.importorskip('onnxruntime')
    resize = runpy.run_path(str(EXAMPLES / file))['resize']
    image = np.random.default_rng(0).integers(0, 256, (211, 333, 3), np.uint8)
    assert np.array_equal(resize(image, *size, half_pixel=False), resize_bilinear(image, *size))
    assert abs(resize(image, *size, half_pixel=True) - cv2.resize(image, size[::-1])).max() <= 1


def test_boxes_are_suppressed_as_by_the_detector():
    suppress = runpy.run_path(str(EXAMPLES / 'detection.py'))['suppress']
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (400, 2))
    boxes = np.hstack([corners, corners + rng.uniform(5, 40, (400, 2))]).astype(np.float32)
    scores = rng.random((400, 3), np.float32)
    for thresholds in (Thresholds(0.2, 0.5, 500, 900), Thresholds(0.2, 0.5, 20, 100), Thresholds(2.0, 0.5, 9, 9)):
        found = suppress(boxes, scores, **thresholds._asdict())
        for ours, wanted in zip(found, finish(boxes, scores, (200, 200), thresholds)):
            assert np.array_equal(ours, wanted)


def test_examples_are_short_and_listed():
    listed = (ROOT / 'docs/deploy.md').read_text(encoding='utf-8')
    files = [file for file in EXAMPLES.rglob('*') if file.suffix in ('.py', '.cpp', '.txt')]
    assert len(files) == 8
    for file in files:
        assert len(file.read_text(encoding='utf-8').splitlines()) < 60
        assert f'examples/{file.relative_to(EXAMPLES).as_posix()}' in listed or file.name == 'CMakeLists.txt'
