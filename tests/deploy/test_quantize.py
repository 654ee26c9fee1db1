import logging
import sys

import pytest
import tqdm

from mixdet.deploy.export import CalibrationImages, export, export_metadata
from mixdet.deploy.exported import load_exported
from mixdet.deploy.inference import Detector
from mixdet.deploy.quantize import _of_one_pixel, quantize
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
    metadata = export(detector, export_metadata(detector, tiny[0], True), path, 'onnx')
    size = path.stat().st_size
    quantize(path, CalibrationImages(detector, demo_images))
    nodes = onnx.load(path).graph.node
    assert sum(node.op_type == 'QuantizeLinear' for node in nodes) > 20
    # a convolution is clipped before its output is quantised, or by the quantisation itself
    kinds = {name: node.op_type for node in nodes for name in node.output}
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
        quantize(path, CalibrationImages(detector, demo_images))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_convolutions_of_one_pixel_stay_in_float():
    """Squeeze-and-excitation, by the shapes that ONNX infers."""
    onnx = pytest.importorskip('onnx')
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    kernel = make.make_tensor('w', kind, [4, 4, 1, 1], [0.0] * 16)
    nodes = [
        make.make_node('Conv', ['image', 'w'], ['wide'], 'first'),
        make.make_node('GlobalAveragePool', ['wide'], ['pooled']),
        make.make_node('Conv', ['pooled', 'w'], ['gate'], 'second'),
        make.make_node('Mul', ['wide', 'gate'], ['out']),
    ]
    info = [make.make_tensor_value_info(name, kind, [1, 4, 8, 8]) for name in ('image', 'out')]
    model = make.make_model(make.make_graph(nodes, 'network', info[:1], info[1:], [kernel]))
    assert _of_one_pixel(onnx.shape_inference.infer_shapes(model).graph) == ['second']


def test_what_8_bits_need(tiny, tmp_path, demo_images, monkeypatch):
    pytest.importorskip('onnxscript')
    detector = Detector(*tiny, fuse=False)
    metadata = export_metadata(detector, tiny[0], True)
    with pytest.raises(UserError, match='there is no image to calibrate on'):
        export(detector, metadata, tmp_path / 'a.onnx', 'onnx', precision='int8')
    monkeypatch.setitem(sys.modules, 'onnxruntime.quantization', None)
    images = CalibrationImages(detector, demo_images)
    with pytest.raises(UserError, match='--format onnx: .*pip install -e'):
        export(detector, metadata, tmp_path / 'a.onnx', 'onnx', precision='int8', calibration=images)
    assert not list(tmp_path.iterdir()) and logging.root.manager.disable == logging.NOTSET
