import numpy as np
import pytest

from mixdet.compat import checkpoints
from mixdet.deploy.export import export, export_metadata
from mixdet.deploy.exported import load_exported
from mixdet.deploy.formats.base import file_size
from mixdet.deploy.formats.ncnn import MODEL, WEIGHTS
from mixdet.deploy.formats.sidecar import write_sidecar
from mixdet.deploy.inference import Detector
from mixdet.deploy.parity import compare_detections, detection_arrays
from mixdet.errors import UserError

pytestmark = pytest.mark.slow
pytest.importorskip('ncnn')
pnnx = pytest.importorskip('pnnx')


def write(tiny, path, precision='fp32'):
    detector = Detector(*tiny, fuse=False)
    export(detector, export_metadata(detector, 'c.py', True), path, 'ncnn', precision=precision)


@pytest.fixture(scope='module')
def folder(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp('ncnn') / 'a.ncnn'
    write(tiny, path)
    return path


@pytest.fixture
def trusted(monkeypatch):
    monkeypatch.setattr(checkpoints, '_trusted', True)


def difference(tiny, path, images):
    """Of the detections of the file from those of its detector."""
    detectors = Detector(*tiny, score_thr=0.0), Detector(tiny[0], path, score_thr=0.0)
    found = [[detection_arrays(sample) for sample in each.predict_samples(images)] for each in detectors]
    return compare_detections(*found, score_thr=0.0)


def test_the_detections_are_the_detectors(tiny, folder, demo_images, trusted):
    found = difference(tiny, folder, demo_images)
    assert found.detections == 30 and found.unmatched == 0
    assert found.boxes < 0.01 and found.scores < 1e-5
    assert sorted(file.name for file in folder.iterdir()) == ['mixdet.json', WEIGHTS, MODEL]
    run, metadata = load_exported(folder, threads=2)
    assert not metadata.nms and metadata.thresholds.max_per_img == 10
    images = Detector(*tiny).preprocess(demo_images).numpy()
    whole, alone = run(images), [run(image[None]) for image in images]
    for outputs, parts in zip(whole, zip(*alone)):
        assert np.array_equal(outputs, np.concatenate(parts))


def test_half_precision_halves_the_file(tiny, folder, tmp_path, demo_images, trusted):
    write(tiny, tmp_path / 'b.ncnn', 'fp16')
    assert file_size(tmp_path / 'b.ncnn/model.bin') < 0.6 * file_size(folder / WEIGHTS)
    found = difference(tiny, tmp_path / 'b.ncnn', demo_images)
    assert 0 < found.scores < 0.05 and found.unmatched <= 6


def test_files_of_strangers_need_trust(folder):
    with pytest.raises(UserError, match=r'a\.ncnn is for a reader that checks little.*--unsafe-load'):
        load_exported(folder)


def test_a_file_that_ncnn_cannot_load(folder, tmp_path):
    path = tmp_path / 'b.ncnn'
    path.mkdir()
    (path / MODEL).write_text('no network\n')
    (path / WEIGHTS).touch()
    write_sidecar(path, load_exported(folder, trusted=True)[1].to_json())
    with pytest.raises(UserError, match=r'model\.param cannot be loaded by ncnn'):
        load_exported(path, trusted=True)


def test_a_failure_of_pnnx_leaves_nothing(tiny, tmp_path, monkeypatch):
    program = tmp_path / 'program'
    program.write_text('#!/bin/sh\necho began\necho "no such operator" >&2\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setattr(pnnx, 'EXEC_PATH', str(program))
    with pytest.raises(UserError, match='--format ncnn: pnnx failed with status 3: no such operator'):
        write(tiny, tmp_path / 'b.ncnn')
    assert list(tmp_path.iterdir()) == [program]
    with pytest.raises(UserError, match='--precision int8: --format ncnn has only fp32, fp16'):
        write(tiny, tmp_path / 'b.ncnn', 'int8')
