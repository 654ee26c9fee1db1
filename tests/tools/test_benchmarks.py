import json

import pytest
import torch
from helpers import ROOT, run_tool, shared_path

pytestmark = pytest.mark.slow

CONFIG = ROOT / 'configs/ssdlite_mobilenetv2/ssdlite_mobilenetv2-baseline3x3_8xb24-600e_coco.py'


@pytest.fixture
def tiny_config(tmp_path):
    """SSDLite on a quarter-width MobileNetV2."""
    path = tmp_path / 'tiny.py'
    path.write_text(
        f"_base_ = '{CONFIG}'\n"
        'model = dict(backbone=dict(widen_factor=0.25), neck=dict(extra_channels=(32, 32, 32, 32)))\n'
    )
    return path


def test_benchmark_mixconv_writes_its_tables(tmp_path):
    done = run_tool(
        'analysis_tools/benchmark_mixconv.py', '--impls', 'padded', '--kernels', 'k35', '--strides', 2, '--batches', 1,
        '--seconds', 0, '--out', 'speed.md', cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / 'speed.md').read_text()
    assert '| padded |' in page and page.count('| 1200@10 k35 s2 b1 |') == 2
    assert done.stdout.count('forward') == 7


def test_benchmark_coco_eval(tmp_path):
    pytest.importorskip('faster_coco_eval')
    annotations = shared_path('data', 'bccd', 'annotations', 'instances_val.json')
    boxes = json.loads(annotations.read_text())['annotations']
    keys = ('image_id', 'category_id', 'bbox')
    (tmp_path / 'found.json').write_text(
        json.dumps([{key: box[key] for key in keys} | {'score': 0.5} for box in boxes])
    )
    done = run_tool('analysis_tools/benchmark_coco_eval.py', annotations, 'found.json', '--rounds', 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].startswith(f'87 images, 3 classes, {len(boxes)} detections') and ', ratio ' in lines[2]
    assert float(lines[3].rpartition(' ')[2]) < 1e-9
    done = run_tool('analysis_tools/benchmark_coco_eval.py', annotations, 'gone.json', cwd=tmp_path)
    assert done.returncode == 2 and 'gone.json does not exist' in done.stderr


@pytest.mark.parametrize(('tool', 'arguments', 'message'), [
    ('benchmark_mixconv', ['--threads', 0], 'must be at least 1'),
    ('benchmark_mixconv', ['--out', 'no/speed.md'], 'the folder no does not exist'),
    ('benchmark_mixconv', ['--impls', 'triton'], "'triton' is not for --device cpu, choose from: split NCHW"),
    ('benchmark_mixconv', ['--dtype', 'float16'], '--dtype is for --device cuda'),
    ('benchmark', ['tiny.py', '--batches', 0], 'must be at least 1'),
    ('benchmark', ['tiny.py', '--shape', 0, 64], '--shape must be at least 1 px'),
    ('benchmark', ['tiny.py', '--profile', 'no/operators.md'], 'the folder no does not exist'),
    ('benchmark', ['tiny.py', '--against', 'tiny.py'], 'is the config itself'),
    ('benchmark', ['tiny.py', '--against', 'split', 'split'], 'tiny, split NCHW is the config itself, or named twice'),
    ('benchmark', ['tiny.py', '--against', 'timm'], 'timm has the MixNets, and the backbone here is a MobileNetV2'),
])  # fmt: skip
def test_benchmarks_refuse_what_they_cannot_do(tiny_config, tool, arguments, message):
    if 'tiny.py' in arguments and '--shape' not in arguments:
        arguments = [*arguments, '--shape', 64, 64]
    done = run_tool(f'analysis_tools/{tool}.py', *arguments, cwd=tiny_config.parent)
    assert done.returncode == 2 and done.stderr.startswith('error: ') and message in done.stderr


def test_benchmark_writes_table_and_picture(tiny_config):
    folder = tiny_config.parent
    done = run_tool(
        'analysis_tools/benchmark.py', 'tiny.py', '--against', 'mmdet', 'split', '--shape', 64, 64, '--batches', 1,
        '--train-batch', 2, '--seconds', 0, '--out', 'speed.md', '--plot', 'speed.png', cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'tiny, fused: within ' in done.stdout
    page = (folder / 'speed.md').read_text()
    assert "over MMDetection's ssdlite_mobilenetv2, NCHW" in page and 'Largest difference' in page
    assert page.count('| inference, batch 1 |') == 4 and page.count('| training step, batch 2 |') == 3
    assert (folder / 'speed.png').read_bytes().startswith(b'\x89PNG')


def test_benchmark_of_backbones_writes_their_operators(tiny_config):
    folder = tiny_config.parent
    done = run_tool(
        'analysis_tools/benchmark.py', 'tiny.py', '--backbone', '--against', 'NCHW:tiny.py', '--shape', 64, 64,
        '--batches', 1, '--train-batch', 0, '--seconds', 0, '--profile', 'operators.md', cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '| inference, batch 1 | tiny, NCHW |' in done.stdout and 'over tiny, NCHW |' in done.stdout
    assert (folder / 'operators.md').read_text().count('| operator itself | ms | share |') == 3


def test_benchmark_without_a_gpu(tmp_path):
    if torch.cuda.is_available():
        pytest.skip('there is one')
    done = run_tool('analysis_tools/benchmark_mixconv.py', '--device', 'cuda', cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.splitlines()[-1].startswith('error: --device cuda: PyTorch finds no CUDA GPU')


def test_benchmark_evaluation_needs_annotations(tmp_path):
    (tmp_path / 'none.json').write_text('{}')
    done = run_tool(
        'analysis_tools/benchmark_evaluation.py', CONFIG, '--ann', 'none.json', '--images', '.', cwd=tmp_path
    )
    assert done.returncode == 2 and done.stderr.startswith('error: --ann none.json is not a COCO annotation file')
