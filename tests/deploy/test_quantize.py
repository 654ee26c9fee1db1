import logging
import sys

import pytest
import tqdm

from mixdet.deploy.export import export, export_metadata
from mixdet.deploy.exported import load_exported
from mixdet.deploy.inference import Detector
from mixdet.deploy.quantize import quantize
from mixdet.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture
def contained(monkeypatch):
    """ONNX Runtime's quantisation extends sys.path when it is imported, and its progress bars start a thread."""
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.setattr(tqdm.tqdm, 'monitor_interval', 0)


def test_int8(tiny, tmp_path, demo_images, contained):
    onnx = pytest.importorskip('onnx')
    path = tmp_path / 'a.onnx'
    detector = Detector(*tiny, fuse=False)
    metadata = export_metadata(detector, tiny[0], True)
    export(detector, metadata, path, 'onnx')
    size = path.stat().st_size
    with pytest.raises(UserError, match='no image to calibrate on'):
        quantize(path, [], detector)
    quantize(path, demo_images, detector)
    assert logging.root.manager.disable == logging.NOTSET
    nodes = onnx.load(path).graph.node
    assert sum(node.op_type == 'QuantizeLinear' for node in nodes) > 20
    # a convolution is clipped before its output is quantised, or by the quantisation itself
    kinds = {name: node.op_type for node in nodes for name in node.output}
    # those whose output is one pixel stay in float, here of the last level
    floats = [node for node in nodes if node.op_type == 'Conv' and kinds.get(node.input[0]) != 'DequantizeLinear']
    assert 0 < len(floats) < 8
    assert 'DequantizeLinear' not in [kinds.get(node.input[0]) for node in nodes if node.op_type == 'Clip']
    assert path.stat().st_size < size
    scales = {node.input[1] for node in nodes if node.op_type == 'DequantizeLinear'}
    weights = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    assert max(weights[name].dims[0] for name in scales if weights[name].dims) > 100  # one for each channel
    run, found = load_exported(path)
    assert found == metadata
    assert [output.shape for output in run(detector.preprocess(demo_images[:1]).numpy())] == [
        (1, 10, 4),
        (1, 10),
        (1, 10),
    ]


def test_a_failure_leaves_the_file_as_it_was(tiny, tmp_path, demo_images, contained, monkeypatch):
    pytest.importorskip('onnx')
    path = tmp_path / 'a.onnx'
    detector = Detector(*tiny, fuse=False)
    export(detector, export_metadata(detector, tiny[0], True), path, 'onnx')
    before = path.read_bytes()
    monkeypatch.setattr('onnxruntime.quantization.quantize_static', lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        quantize(path, demo_images, detector)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_onnxruntime_is_needed(tiny, tmp_path, demo_images, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime.quantization', None)
    with pytest.raises(UserError, match='--int8: .*pip install -e'):
        quantize(tmp_path / 'a.onnx', demo_images, Detector(*tiny))
