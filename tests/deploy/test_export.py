import numpy as np
import pytest
import torch
from helpers import tiny_checkpoint

from mixdet.datasets.demo import draw_image
from mixdet.deploy.export import SUFFIXES, check_target, describe, export, verification_images
from mixdet.deploy.exported import ExportedDetector, load_exported
from mixdet.deploy.inference import Detector
from mixdet.deploy.parity import arrays, compare
from mixdet.deploy.quantize import quantize
from mixdet.errors import UserError

CLASSES = ('disc', 'square', 'triangle', 'star')


@pytest.fixture(scope='module')
def images():
    return [draw_image(np.random.default_rng(i))[0] for i in range(3)]


@pytest.fixture(scope='module')
def tiny(tmp_path_factory, images):
    """A detector whose batch-norm statistics are those of the images, so that its detections differ."""
    config, checkpoint = tiny_checkpoint(tmp_path_factory.mktemp('tiny'))
    detector = Detector(config, checkpoint, score_thr=0.0)
    for module in detector.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    detector.model.train()
    with torch.no_grad():
        detector.model(detector.preprocess(images), mode='tensor')
    torch.save(dict(state_dict=detector.model.state_dict()), checkpoint)
    return config, checkpoint


def detections(detector, images):
    return [arrays(detector.predict_samples([image])[0]) for image in images]


def write(tiny, path, name, nms=True, **options):
    detector = Detector(*tiny)
    metadata = describe(detector, tiny[0], nms)
    export(detector, metadata, path, name, **options)
    return load_exported(path)


@pytest.mark.parametrize('name', SUFFIXES)
def test_every_format_gives_the_same_alone_and_in_a_batch(tiny, tmp_path, images, name):
    path = tmp_path / f'a{SUFFIXES[name]}'
    run, metadata = write(tiny, path, name, dynamic_batch=True)
    assert metadata.classes == CLASSES and metadata.input_size == (160, 160) and metadata.resize == 'Resize'
    detector = Detector(*tiny)
    expected = detections(detector, images)
    inputs = detector.preprocess(images).numpy()
    detector.model = ExportedDetector(str(path), detector.cfg.model.data_preprocessor)
    difference = compare(expected, detections(detector, images), score_thr=0.0)
    assert difference.detections == 30 and difference.unmatched == 0
    assert difference.boxes < 0.1 and difference.scores < 1e-4
    batch, alone = run(inputs), [run(image[None]) for image in inputs]
    assert [output.shape for output in batch] == [(3, 10, 4), (3, 10), (3, 10)]
    for i, one in enumerate(alone):
        for ours, theirs in zip(one, batch):
            np.testing.assert_allclose(ours[0], theirs[i], atol=1e-2)


def test_without_nms_in_half_precision(tiny, tmp_path):
    onnx = pytest.importorskip('onnx')
    run, metadata = write(tiny, tmp_path / 'a.onnx', 'onnx', nms=False, half=True)
    boxes, scores = run(np.zeros((1, 3, 160, 160), np.float32))
    assert not metadata.nms and boxes.dtype == scores.dtype == np.float32
    assert boxes.shape[:2] == scores.shape[:2] and scores.shape[2] == 4
    weights = onnx.load(tmp_path / 'a.onnx').graph.initializer
    assert any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in weights)
    with pytest.raises(UserError, match='exported with --no-nms'):
        ExportedDetector(str(tmp_path / 'a.onnx'))


def test_int8(tiny, tmp_path, images):
    onnx = pytest.importorskip('onnx')
    write(tiny, tmp_path / 'a.onnx', 'onnx')
    detector = Detector(*tiny)
    with pytest.raises(UserError, match='no image to calibrate on'):
        quantize(tmp_path / 'a.onnx', [], detector)
    quantize(tmp_path / 'a.onnx', images, detector)
    nodes = onnx.load(tmp_path / 'a.onnx').graph.node
    assert sum(node.op_type == 'QuantizeLinear' for node in nodes) > 20
    # a convolution is clipped before its output is quantised, or by that itself
    kinds = {name: node.op_type for node in nodes for name in node.output}
    assert 'DequantizeLinear' not in [kinds.get(node.input[0]) for node in nodes if node.op_type == 'Clip']
    run, metadata = load_exported(tmp_path / 'a.onnx')
    assert metadata.nms and metadata.classes == CLASSES
    assert [output.shape for output in run(detector.preprocess(images[:1]).numpy())] == [(1, 10, 4), (1, 10), (1, 10)]


def test_what_the_metadata_cannot_say_is_refused(tiny):
    """A user of the file would otherwise prepare images differently from the training."""
    detector = Detector(*tiny)
    resize = detector.cfg.test_dataloader.dataset.pipeline[1]
    resize.type = 'mixdet.TFResize'
    assert describe(detector, tiny[0], True).resize == 'TFResize'
    for change in (dict(keep_ratio=True), dict(interpolation='area'), dict(type='RandomChoiceResize')):
        detector = Detector(*tiny)
        detector.cfg.test_dataloader.dataset.pipeline[1].update(change)
        with pytest.raises(UserError, match='one Resize or TFResize, bilinear to a fixed scale'):
            describe(detector, tiny[0], True)
    detector = Detector(*tiny)
    detector.cfg.test_dataloader.dataset.pipeline.insert(2, dict(type='Pad', size_divisor=32))
    with pytest.raises(UserError, match='nothing else that changes the image'):
        describe(detector, tiny[0], True)
    detector = Detector(*tiny)
    detector.model.data_preprocessor.pad_size_divisor = 64
    with pytest.raises(UserError, match='pad_size_divisor=64 must divide 160x160'):
        describe(detector, tiny[0], True)


def test_target(tmp_path):
    check_target(tmp_path / 'a.pt2', 'torch-export')
    (tmp_path / 'a.onnx').touch()
    for name, message in (('a.onnx', 'exists already'), ('a.pt2', 'must end in .onnx')):
        with pytest.raises(UserError, match=message):
            check_target(tmp_path / name, 'onnx')


def test_formats_that_pytorch_is_too_old_for_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, '__version__', '2.4.1+cu121')
    check_target(tmp_path / 'a.torchscript', 'torchscript')
    for name, needed in (('onnx', '2.6'), ('torch-export', '2.5')):
        with pytest.raises(UserError, match=rf'--format {name} needs PyTorch {needed}, and 2\.4\.1'):
            check_target(tmp_path / f'a{SUFFIXES[name]}', name)


def test_verification_images_are_the_test_sets(tiny, tmp_path):
    cfg = Detector(*tiny).cfg
    cfg.test_dataloader.dataset.update(data_root=str(tmp_path), data_prefix=dict(img='x/'))
    assert verification_images(cfg) == []
    (tmp_path / 'x').mkdir()
    for name in ('b.jpg', 'a.png', 'c.txt'):
        (tmp_path / 'x' / name).touch()
    assert [path.name for path in verification_images(cfg)] == ['a.png', 'b.jpg']
