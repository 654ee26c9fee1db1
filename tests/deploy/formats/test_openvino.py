import os

import numpy as np
import pytest

from mixdet.deploy.export import CalibrationImages, export, export_metadata
from mixdet.deploy.exported import ExportedDetector, load_exported
from mixdet.deploy.formats.base import file_size
from mixdet.deploy.formats.openvino import HINT, MODEL, WEIGHTS
from mixdet.deploy.formats.sidecar import write_sidecar
from mixdet.deploy.inference import Detector
from mixdet.deploy.parity import compare_detections, detection_arrays
from mixdet.errors import UserError

pytestmark = pytest.mark.slow
openvino = pytest.importorskip('openvino')


def write(tiny, path, precision='fp32', images=()):
    detector = Detector(*tiny, fuse=False)
    calibration = CalibrationImages(detector, images)
    export(detector, export_metadata(detector, 'c.py', True), path, 'openvino', False, precision, calibration)


@pytest.fixture(scope='module')
def folder(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp('openvino') / 'a.openvino'
    write(tiny, path)
    return path


def difference(tiny, path, images, score_thr=0.0):
    """Of the detections of the file from those of its detector."""
    detectors = Detector(*tiny, score_thr=score_thr), Detector(tiny[0], path, score_thr=score_thr)
    found = [[detection_arrays(sample) for sample in each.predict_samples(images)] for each in detectors]
    return compare_detections(*found, score_thr=score_thr)


def test_the_detections_are_the_detectors(tiny, folder, demo_images):
    found = difference(tiny, folder, demo_images)
    assert found.detections == 30 and found.unmatched == 0
    assert found.boxes < 0.01 and found.scores < 1e-5
    assert sorted(file.name for file in folder.iterdir()) == ['mixdet.json', WEIGHTS, MODEL]
    metadata = load_exported(folder)[1]
    assert not metadata.nms and metadata.thresholds.max_per_img == 10
    boxes, scores = load_exported(folder, threads=2)[0](np.zeros((1, 3, 160, 160), np.float32))
    assert boxes.shape[::2] == (1, 4) and scores.shape == (1, boxes.shape[1], 4)


def test_half_precision_halves_the_file(tiny, folder, tmp_path, demo_images):
    write(tiny, tmp_path / 'b.openvino', 'fp16')
    weights = [file_size(path / WEIGHTS) for path in (tmp_path / 'b.openvino', folder)]
    assert weights[0] < 0.6 * weights[1]
    found = difference(tiny, tmp_path / 'b.openvino', demo_images)
    assert 0 < found.scores < 0.05 and found.unmatched <= 6


def test_8_bits(tiny, folder, tmp_path, demo_images):
    pytest.importorskip('nncf')
    path = tmp_path / 'b.openvino'
    with pytest.raises(UserError, match='no image to calibrate on'):
        write(tiny, path, 'int8')
    assert not path.exists()
    write(tiny, path, 'int8', demo_images)
    kinds = [node.get_type_name() for node in openvino.Core().read_model(path / MODEL).get_ops()]
    assert kinds.count('FakeQuantize') > 20
    assert file_size(path / WEIGHTS) < 0.5 * file_size(folder / WEIGHTS)
    # boxes are decoded in float: those of all anchors stay where they are up to the regression's rounding
    images = Detector(*tiny).preprocess(demo_images[:1]).numpy()
    (boxes, scores), (others, _) = (load_exported(each)[0](images) for each in (path, folder))
    assert np.median(np.abs(boxes - others)) < 2 and 0 <= scores.min() <= scores.max() <= 1


def test_the_arithmetic_is_float32_unless_it_is_said_otherwise(folder, monkeypatch):
    asked = []
    core = openvino.Core

    class Core(core):
        def compile_model(self, model, device, options):
            asked.append(options)
            return super().compile_model(model, device, options)

    monkeypatch.setattr(openvino, 'Core', Core)
    load_exported(folder, threads=1)
    monkeypatch.setenv(HINT, 'bf16')
    load_exported(folder, threads=2)
    assert [options['INFERENCE_PRECISION_HINT'] for options in asked] == ['f32', 'bf16']
    assert [options['INFERENCE_NUM_THREADS'] for options in asked] == [1, 2]
    monkeypatch.setenv(HINT, 'fast')
    with pytest.raises(UserError, match=f'{HINT}=fast: must be one of f32, bf16, f16'):
        load_exported(folder)


def test_damaged_and_foreign_folders(tiny, folder, tmp_path, monkeypatch):
    path = tmp_path / 'b.openvino'
    path.mkdir()
    with pytest.raises(UserError, match=r'b\.openvino has no metadata'):
        load_exported(path)
    metadata = load_exported(folder)[1].to_json()
    text = (folder / MODEL).read_text()
    damaged = {'': b'', 'short': b'\0' * 8, 'whole': (folder / WEIGHTS).read_bytes()}
    for broken, weights in ((text, ''), (text, 'short'), ('<net/>', 'whole'), (text[:2000], 'whole')):
        (path / MODEL).write_text(broken)
        (path / WEIGHTS).write_bytes(damaged[weights])
        write_sidecar(path, metadata)
        with pytest.raises(UserError, match=r'b\.openvino is not a detector exported by') as error:
            ExportedDetector(str(path))
        assert '\n' not in str(error.value)
    (path / MODEL).unlink()
    write_sidecar(path, metadata)
    with pytest.raises(UserError, match='is not a detector exported by'):
        load_exported(path)


def test_an_extension_is_not_loaded(folder, tmp_path):
    """An operation of another library is refused: nothing names a library to load."""
    path = tmp_path / 'b.openvino'
    path.mkdir()
    text = (folder / MODEL).read_text()
    (path / MODEL).write_text(text.replace('type="Convolution" version="opset1"', 'type="Evil" version="extension"'))
    assert 'Evil' in (path / MODEL).read_text()
    (path / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes())
    write_sidecar(path, load_exported(folder)[1].to_json())
    with pytest.raises(UserError, match='is not a detector exported by'):
        load_exported(path)


def test_nothing_is_reported(tiny, tmp_path, demo_images, monkeypatch):
    sender, sent = pytest.importorskip('openvino_telemetry.utils.sender'), []
    monkeypatch.setattr(sender.TelemetrySender, 'send', lambda *message: sent.append(message))
    monkeypatch.delenv('CI', raising=False)
    write(tiny, tmp_path / 'a.openvino', 'int8', demo_images)
    assert not sent and 'CI' not in os.environ
