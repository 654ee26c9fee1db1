import numpy as np
import pytest
import torch
from helpers import tiny_checkpoint

from mixdet.datasets.demo import draw_image
from mixdet.deploy.export import SUFFIXES, compare, describe, export, verification_images
from mixdet.deploy.exported import ExportedDetector, load_exported
from mixdet.deploy.inference import Detector
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


def arrays(detector, images):
    found = [detector.predict_samples([image])[0].pred_instances for image in images]
    return [(one.bboxes.numpy(), one.scores.numpy(), one.labels.numpy()) for one in found]


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
    expected = arrays(detector, images)
    inputs = detector.preprocess(images).numpy()
    detector.model = ExportedDetector(str(path), detector.cfg.model.data_preprocessor)
    difference = compare(expected, arrays(detector, images), score_thr=0.0)
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
    nodes = [node.op_type for node in onnx.load(tmp_path / 'a.onnx').graph.node]
    assert nodes.count('QuantizeLinear') > 20
    run, metadata = load_exported(tmp_path / 'a.onnx')
    assert metadata.nms and metadata.classes == CLASSES
    assert [output.shape for output in run(detector.preprocess(images[:1]).numpy())] == [(1, 10, 4), (1, 10), (1, 10)]


def test_only_a_plain_resize_can_be_described(tiny):
    detector = Detector(*tiny)
    detector.cfg.test_dataloader.dataset.pipeline[1].keep_ratio = True
    with pytest.raises(UserError, match='keep_ratio=False'):
        describe(detector, tiny[0], True)


def test_comparison_finds_differences():
    boxes = np.float32([[0, 0, 10, 10], [50, 50, 60, 60]])
    scores, labels = np.float32([0.9, 0.8]), np.array([0, 1])
    assert compare([(boxes, scores, labels)], [(boxes, scores, labels)]) == (0.0, 0.0, 0, 2)
    moved = compare([(boxes, scores, labels)], [(boxes + 0.5, scores - 0.1, labels)])
    assert moved.boxes == 0.5 and moved.scores == pytest.approx(0.1) and moved.unmatched == 0
    assert compare([(boxes, scores, labels)], [(boxes, scores, 1 - labels)]).unmatched == 2
    assert compare([(boxes, scores, labels)], [(boxes + 90, scores, labels)]).unmatched == 2


def test_verification_images_are_the_test_sets(tiny, tmp_path):
    cfg = Detector(*tiny).cfg
    cfg.test_dataloader.dataset.update(data_root=str(tmp_path), data_prefix=dict(img='x/'))
    assert verification_images(cfg) == []
    (tmp_path / 'x').mkdir()
    for name in ('b.jpg', 'a.png', 'c.txt'):
        (tmp_path / 'x' / name).touch()
    assert [path.name for path in verification_images(cfg)] == ['a.png', 'b.jpg']
