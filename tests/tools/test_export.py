import re

import cv2
import numpy as np
import pytest
from helpers import ROOT, coco_checkpoint, run_tool, shared_path, start_tool, tiny_checkpoint

from mixdet.deploy.exported import load_exported
from mixdet.evaluation.results import read_results

pytestmark = pytest.mark.slow


def test_a_trained_detector(tmp_path):
    config, checkpoint = coco_checkpoint(tmp_path, size=300)
    image = shared_path('data', 'coco-mini', 'val2017') / '000000000139.jpg'
    done = run_tool('export.py', config, checkpoint, '--out', 'coco.onnx', '--images', image, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = re.search(
        r'verified on 1 images, (\d+) detections: boxes within ([\d.]+) px, scores within (\S+), (\d+) without',
        done.stdout,
    )
    assert int(report[1]) > 5 and float(report[2]) < 0.1 and float(report[3]) < 1e-4 and report[4] == '0'
    # the same AP from the exported file, through the ordinary tool
    data = shared_path('data', 'coco-mini')
    (tmp_path / 'c.py').write_text(
        f"_base_ = '{config}'\n"
        f"test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}/'))\n"
        f"test_evaluator = dict(ann_file='{data}/annotations/instances_val2017.json')\n"
    )
    done = run_tool('test.py', 'c.py', 'coco.onnx', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (result,) = read_results(tmp_path)
    assert round(result.numbers.bbox.stats['mAP'], 4) == 0.3551


def test_exports_that_cannot_be_verified(tmp_path):
    tiny = tiny_checkpoint(tmp_path)
    cv2.imwrite(str(tmp_path / 'a.jpg'), np.zeros((20, 30, 3), np.uint8))
    for name, arguments, reason in (
        ('a', (), 'not verified: no images; give --images'),
        ('b', ('--no-nms', '--images', 'a.jpg'), 'not verified: without NMS there are no detections'),
    ):
        options = ('--format', 'torchscript', '--out', f'new/{name}.torchscript', *arguments)
        done = run_tool('export.py', *tiny, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == reason
        assert re.match(r'new/.\.torchscript: \d\.\d MiB, input \(160, 160\), torchscript', done.stdout)
        assert load_exported(tmp_path / f'new/{name}.torchscript', trusted=True)[1].nms == (name == 'a')


def test_8_bits_are_not_called_verified(tmp_path):
    """A network of random weights, to whose nearly equal scores 8 bits do much."""
    pytest.importorskip('onnxruntime')
    tiny = tiny_checkpoint(tmp_path)
    for i in range(2):
        cv2.imwrite(str(tmp_path / f'{i}.jpg'), np.random.default_rng(i).integers(0, 256, (160, 160, 3), np.uint8))
    done = run_tool('export.py', *tiny, '--out', 'a.onnx', '--int8', '.', '--images', '0.jpg', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.search(
        r'^(\w+) on 1 images, (\d+) detections: .* (\d+) without a counterpart$', done.stdout, re.MULTILINE
    )
    assert found[1] == 'differs' and int(found[3]) > 0.1 * int(found[2])
    assert f'warning: 8 bits change much, {found[3]} detections have no counterpart' in done.stderr


def test_a_failed_quantisation_leaves_no_file(tmp_path):
    tiny = tiny_checkpoint(tmp_path)
    cv2.imwrite(str(tmp_path / 'a.jpg'), np.zeros((20, 30, 3), np.uint8))
    blocker = tmp_path / 'blocked/onnxruntime'
    blocker.mkdir(parents=True)
    (blocker / '__init__.py').write_text("raise ImportError('no onnxruntime here')\n")
    done = start_tool(
        'export.py', *tiny, '--out', 'a.onnx', '--int8', '.', cwd=tmp_path, PYTHONPATH=f'{blocker.parent}:{ROOT}'
    )
    assert done.returncode == 2 and 'no onnxruntime here' in done.stderr
    assert not (tmp_path / 'a.onnx').exists()


def test_wrong_arguments(tmp_path):
    (tmp_path / 'there.onnx').write_bytes(b'mine')
    for arguments, message in (
        (('--out', 'a.pt2'), 'a.pt2: a file in format onnx must end in .onnx'),
        (('--out', 'there.onnx'), 'there.onnx exists already'),
        (('--out', 'a.pt2', '--format', 'torch-export', '--int8', '.'), '--format torch-export has only fp32, fp16'),
        (('--out', 'a.onnx', '--half', '--int8', '.'), '--precision, --half and --int8 contradict each other'),
        (('--out', 'a.onnx', '--precision', 'int8'), '--precision int8 and --calibrate DIR'),
        (('--out', 'a.onnx', '--calibrate', '.'), '--precision int8 and --calibrate DIR'),
        (('--out', 'a.onnx', '--calibrate', '.', '--int8', '.'), '--int8 DIR and --calibrate DIR name two folders'),
    ):
        done = run_tool('export.py', 'c.py', 'c.pth', *arguments, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert (tmp_path / 'there.onnx').read_bytes() == b'mine'


def test_nothing_is_written_without_the_images_asked_for(tmp_path):
    tiny = tiny_checkpoint(tmp_path)
    for arguments in (('--int8', 'gone'), ('--images', 'gone')):
        done = run_tool('export.py', *tiny, '--out', 'a.onnx', *arguments, cwd=tmp_path)
        assert done.returncode == 2 and done.stderr == 'error: gone: no image or video found; check the path\n'
        assert not (tmp_path / 'a.onnx').exists()
