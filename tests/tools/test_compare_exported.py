import pytest
from helpers import coco_checkpoint, run_tool, shared_path

from mixdet.deploy.export import export, export_metadata
from mixdet.deploy.formats import FORMATS
from mixdet.deploy.inference import Detector

pytestmark = pytest.mark.slow


def test_the_formats_have_the_detections_and_the_ap_of_the_checkpoint(tmp_path):
    for package in ('onnx', 'openvino', 'pnnx', 'ncnn'):
        pytest.importorskip(package)
    data = shared_path('data', 'coco-mini')
    config, checkpoint = coco_checkpoint(tmp_path, size=300)
    (tmp_path / 'c.py').write_text(
        f"_base_ = '{config}'\n"
        'model = dict(test_cfg=dict(max_per_img=20))\n'
        'test_dataloader = dict(num_workers=0, persistent_workers=False,\n'
        f"                       dataset=dict(indices=16, data_root='{data}/'))\n"
        f"test_evaluator = dict(ann_file='{data}/annotations/instances_val2017.json')\n"
    )
    detector = Detector(str(tmp_path / 'c.py'), checkpoint, fuse=False)
    names = ('onnx', 'openvino', 'ncnn', 'torchscript', 'torch-export')  # others have tests of their own
    files = [tmp_path / f'a{FORMATS[name].suffix}' for name in names]
    for name, path in zip(names, files):
        export(detector, export_metadata(detector, 'c.py', True), path, name)
    done = run_tool('analysis_tools/compare_exported.py', 'c.py', checkpoint, *files, '--unsafe-load', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.strip('| ').split(' | ') for line in done.stdout.splitlines() if line.startswith(('| coco', '| a.'))]
    assert [line[0] for line in lines] == ['coco.pth', *(file.name for file in files)]
    for _, _, ap, ap50, detections, boxes, scores, unmatched, *_ in lines:
        assert (ap, ap50, detections) == tuple(lines[0][2:5]) and float(ap) > 0.03 and int(detections) > 100
        assert float(boxes) < 0.1 and float(scores) < 1e-4 and unmatched == '0'


def test_a_file_that_is_none_exported(tmp_path):
    config, checkpoint = coco_checkpoint(tmp_path, size=300)
    data = shared_path('data', 'coco-mini')
    options = (
        f'test_dataloader.dataset.data_root={data}/',
        f'test_evaluator.ann_file={data}/annotations/instances_val2017.json',
    )
    done = run_tool(
        'analysis_tools/compare_exported.py', config, checkpoint, checkpoint, '--cfg-options', *options, cwd=tmp_path
    )
    assert done.returncode == 2 and 'an exported file must end in one of .onnx' in done.stderr
