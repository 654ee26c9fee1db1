import logging
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from helpers import little_room, needs_torch
from mmengine.config import Config
from torch import nn

from mixdet.compat.stack import is_at_least
from mixdet.deploy.export import check_export, export, export_metadata, verification_images
from mixdet.deploy.exported import ExportedDetector, load_exported
from mixdet.deploy.formats import FORMATS
from mixdet.deploy.formats.base import quiet
from mixdet.deploy.inference import Detector
from mixdet.deploy.parity import compare_detections, detection_arrays
from mixdet.errors import UserError
from mixdet.layers import MixConv2d
from mixdet.version import __version__

pytestmark = pytest.mark.slow

CLASSES = ('disc', 'square', 'triangle', 'star')


def detections(detector, images):
    return [detection_arrays(detector.predict_samples([image])[0]) for image in images]


def write(tiny, path, name, nms=True, **options):
    detector = Detector(*tiny, fuse=False)
    export(detector, export_metadata(detector, tiny[0], nms), path, name, **options)
    return load_exported(path, trusted=True)


@pytest.mark.parametrize(
    'name',
    [pytest.param(name, marks=needs_torch(row.minimum_torch)) for name, row in FORMATS.items() if row.dynamic_batch],
)
def test_every_format_gives_the_same_alone_and_in_a_batch(tiny, tmp_path, demo_images, name):
    if name == 'onnx':
        pytest.importorskip('onnxscript')
    path = tmp_path / f'a{FORMATS[name].suffix}'
    if name == 'onnx' and not is_at_least(torch.__version__, '2.7'):
        with pytest.raises(UserError, match='fixes the number of images'):
            write(tiny, path, name, dynamic_batch=True)
        return
    run, metadata = write(tiny, path, name, dynamic_batch=True)
    expected = export_metadata(Detector(*tiny), tiny[0], True)
    assert metadata == expected._replace(thresholds=metadata.thresholds) and metadata.thresholds.max_per_img == 10
    detector = Detector(*tiny)
    expected = detections(detector, demo_images)
    inputs = detector.preprocess(demo_images).numpy()
    detector.model = ExportedDetector(str(path), detector.cfg.model.data_preprocessor, trusted=True)
    difference = compare_detections(expected, detections(detector, demo_images), score_thr=0.0)
    assert difference.detections == 30 and difference.unmatched == 0
    assert difference.boxes < 0.1 and difference.scores < 1e-4
    batch, alone = run(inputs), [run(image[None]) for image in inputs]
    assert [output.shape for output in batch] == [(3, 10, 4), (3, 10), (3, 10)]
    for i, one in enumerate(alone):
        for ours, theirs in zip(one, batch):
            np.testing.assert_allclose(ours[0], theirs[i], atol=1e-2)


@needs_torch(FORMATS['onnx'].minimum_torch)
def test_a_batch_that_pytorch_has_fixed_is_refused(tiny, tmp_path, monkeypatch):
    pytest.importorskip('onnxscript')
    whole = torch.onnx.export
    monkeypatch.setattr(torch.onnx, 'export', lambda *args, dynamic_shapes, **options: whole(*args, **options))
    with pytest.raises(UserError, match='fixes the number of images'):
        write(tiny, tmp_path / 'a.onnx', 'onnx', dynamic_batch=True)
    assert not list(tmp_path.glob('*.onnx'))


@needs_torch(FORMATS['onnx'].minimum_torch)
def test_onnx_without_nms_in_half_precision(tiny, tmp_path):
    onnx = pytest.importorskip('onnx')
    run, metadata = write(tiny, tmp_path / 'a.onnx', 'onnx', nms=False, precision='fp16')
    boxes, scores = run(np.zeros((1, 3, 160, 160), np.float32))
    assert not metadata.nms and boxes.dtype == scores.dtype == np.float32
    assert boxes.shape[:2] == scores.shape[:2] and scores.shape[2] == 4
    with pytest.raises(Exception, match='invalid dimensions'):  # it is for one image
        run(np.zeros((2, 3, 160, 160), np.float32))
    assert isinstance(ExportedDetector(str(tmp_path / 'a.onnx')), ExportedDetector)
    graph = onnx.load(tmp_path / 'a.onnx').graph
    assert any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.initializer)
    # one convolution for each mixed one, and no batch-norm
    blocks = [module for module in Detector(*tiny).model.modules() if isinstance(module, (MixConv2d, nn.Conv2d))]
    groups = [conv for block in blocks if isinstance(block, MixConv2d) for conv in block.convs]
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds['Conv'] == len(blocks) - len(groups) < len(blocks) and 'BatchNormalization' not in kinds


@needs_torch(FORMATS['torch-export'].minimum_torch)
def test_a_program_for_one_image_takes_one(tiny, tmp_path):
    run, _ = write(tiny, tmp_path / 'a.pt2', 'torch-export', nms=False)
    assert run(np.zeros((1, 3, 160, 160), np.float32))[0].shape[0] == 1
    with pytest.raises((AssertionError, RuntimeError), match='Guard failed|to be equal to'):
        run(np.zeros((2, 3, 160, 160), np.float32))


def test_a_fused_detector_is_refused(tiny, tmp_path):
    detector = Detector(*tiny)
    with pytest.raises(ValueError, match='is fused already; give the original, in a Detector that of fuse=False'):
        export(detector, export_metadata(detector, 'c.py', True), tmp_path / 'a.torchscript', 'torchscript')
    assert not (tmp_path / 'a.torchscript').exists()


def test_metadata(tiny):
    detector = Detector(*tiny)
    metadata = export_metadata(detector, 'configs/some_config.py', False)
    assert metadata.classes == CLASSES and metadata.resize == 'Resize' and not metadata.nms
    assert (metadata.config, metadata.version) == ('some_config', __version__)
    preprocessor = detector.cfg.model.data_preprocessor
    assert metadata.mean == pytest.approx(preprocessor.mean) and metadata.std == pytest.approx(preprocessor.std)
    resize = detector.cfg.test_dataloader.dataset.pipeline[1]
    for scale, expected in (((160, 96), (96, 160)), (128, (128, 128))):  # width, height; height, width
        resize.scale = scale
        assert export_metadata(detector, 'c.py', True).input_size == expected
    resize.type = 'mixdet.TFResize'
    assert export_metadata(detector, 'c.py', True).resize == 'TFResize'


@pytest.mark.parametrize(
    'change', [dict(keep_ratio=True), dict(interpolation='area'), dict(type='RandomChoiceResize'), dict(type='Pad')]
)
def test_other_resizing_is_refused(tiny, change):
    """A user of the file would otherwise prepare images differently from the training."""
    detector = Detector(*tiny)
    detector.cfg.test_dataloader.dataset.pipeline[1].update(change)
    with pytest.raises(UserError, match='one Resize or TFResize, bilinear, to a fixed scale'):
        export_metadata(detector, 'c.py', True)


def test_other_preprocessing_is_refused(tiny):
    detector = Detector(*tiny)
    detector.cfg.test_dataloader.dataset.pipeline.insert(2, dict(type='Pad', size_divisor=32))
    with pytest.raises(UserError, match='no other transform that changes the image'):
        export_metadata(detector, 'c.py', True)
    for name, value in (('_channel_conversion', False), ('_enable_normalize', False)):
        detector = Detector(*tiny)
        setattr(detector.model.data_preprocessor, name, value)
        with pytest.raises(UserError, match='mean, std and bgr_to_rgb=True'):
            export_metadata(detector, 'c.py', True)
    detector = Detector(*tiny)
    resize = detector.cfg.test_dataloader.dataset.pipeline[1]
    detector.model.data_preprocessor.pad_size_divisor = 64
    for scale in ((128, 160), (160, 128)):
        resize.scale = scale
        with pytest.raises(UserError, match=f'pad_size_divisor=64 must divide {scale[1]}x{scale[0]}'):
            export_metadata(detector, 'c.py', True)


@needs_torch(FORMATS['onnx'].minimum_torch)
def test_export_path(tiny, tmp_path):
    check_export(tmp_path / 'a.pt2', 'torch-export')
    (tmp_path / 'a.onnx').write_bytes(b'mine')
    for name, message in (('a.onnx', 'exists already'), ('a.pt2', 'must end in .onnx')):
        with pytest.raises(UserError, match=message):
            check_export(tmp_path / name, 'onnx')
        with pytest.raises(UserError, match=message):
            write(tiny, tmp_path / name, 'onnx')
    assert (tmp_path / 'a.onnx').read_bytes() == b'mine'


def test_formats_that_pytorch_is_too_old_for_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, '__version__', '2.4.1+cu121')
    check_export(tmp_path / 'a.torchscript', 'torchscript')
    for name, needed in (('onnx', '2.6'), ('torch-export', '2.6')):
        with pytest.raises(UserError, match=rf'--format {name} needs PyTorch {needed}, and 2\.4\.1'):
            check_export(tmp_path / f'a{FORMATS[name].suffix}', name)
    monkeypatch.setattr(torch, '__version__', '2.1.2')
    with pytest.raises(UserError, match=r'--precision fp16 needs PyTorch 2\.2, and 2\.1\.2'):
        check_export(tmp_path / 'a.torchscript', 'torchscript', precision='fp16')


def test_verification_images_are_the_test_sets(tmp_path):
    cfg = Config(dict(test_dataloader=dict(dataset=dict(data_root=str(tmp_path), data_prefix=dict(img='x/')))))
    assert verification_images(cfg) == verification_images(Config()) == []
    (tmp_path / 'x').mkdir()
    for name in ('b.jpg', 'a.png', 'c.txt', 'd.JPEG'):
        (tmp_path / 'x' / name).touch()
    assert [path.name for path in verification_images(cfg)] == ['a.png', 'b.jpg', 'd.JPEG']
    assert [path.name for path in verification_images(cfg, limit=2)] == ['a.png', 'b.jpg']
    cfg.test_dataloader.dataset = dict(type='RepeatDataset', dataset=cfg.test_dataloader.dataset)
    assert len(verification_images(cfg)) == 3


def test_quiet_exporters(capsys):
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    with pytest.raises(RuntimeError), quiet():
        print('progress')
        assert not logger.isEnabledFor(logging.WARNING)
        raise RuntimeError
    assert capsys.readouterr().out == '' and logger.level == level


@needs_torch(FORMATS['onnx'].minimum_torch)
def test_torch_formats_need_no_onnx(tiny, tmp_path, monkeypatch):
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match='--format onnx: .*pip install -e'):
        write(tiny, tmp_path / 'a.onnx', 'onnx')
    (tmp_path / 'b.onnx').touch()
    with pytest.raises(UserError, match='needs onnxruntime, which is not installed'):
        load_exported(tmp_path / 'b.onnx')
    with torch.no_grad():
        run, metadata = write(tiny, tmp_path / 'a.torchscript', 'torchscript', nms=False)
    assert metadata.classes == CLASSES and len(run(np.zeros((1, 3, 160, 160), np.float32))) == 2


@pytest.mark.parametrize('name', ['torchscript', pytest.param('torch-export', marks=needs_torch('2.6'))])
def test_a_full_disk_is_named(tiny, tmp_path, name):
    """PyTorch's own writing would end the process."""
    with little_room(10_000), pytest.raises(UserError, match='cannot be written: File too large'):
        write(tiny, tmp_path / f'a{FORMATS[name].suffix}', name)
    assert not list(tmp_path.iterdir())


def test_options_that_a_format_lacks(tmp_path):
    for options, message in (
        (dict(precision='int8'), '--precision int8: --format torchscript has only fp32, fp16'),
        (dict(precision='int8', file_format='ncnn'), '--precision int8: --format ncnn has only fp32, fp16'),
        (dict(dynamic_batch=True, file_format='ncnn'), '--dynamic-batch: files in format ncnn take one image'),
    ):
        with pytest.raises(UserError, match=message):
            check_export(tmp_path / 'a.torchscript', **{'file_format': 'torchscript', **options})


def test_metadata_beside_a_file_are_not_overwritten_and_go_with_it(tiny, tmp_path, monkeypatch):
    """Of a format that holds none itself: both files or none."""
    row = FORMATS['torchscript']
    opened = row._replace(
        metadata_inside=False, open_file=lambda *arguments: row.open_file(*arguments)._replace(metadata=None)
    )
    monkeypatch.setitem(FORMATS, 'torchscript', opened)
    beside = tmp_path / 'a.torchscript.json'
    beside.write_text('mine')
    with pytest.raises(UserError, match=r'a\.torchscript\.json exists already'):
        write(tiny, tmp_path / 'a.torchscript', 'torchscript')
    assert beside.read_text() == 'mine' and list(tmp_path.iterdir()) == [beside]
    beside.unlink()
    assert write(tiny, tmp_path / 'a.torchscript', 'torchscript')[1].classes == CLASSES
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.torchscript', 'a.torchscript.json']
    broken = opened._replace(open_file=lambda *arguments: 1 / 0)
    monkeypatch.setitem(FORMATS, 'torchscript', broken)
    with pytest.raises(UserError, match='b.torchscript is not a detector exported by'):
        write(tiny, tmp_path / 'b.torchscript', 'torchscript')
    assert len(list(tmp_path.iterdir())) == 2
