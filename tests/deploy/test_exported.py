import copy

import numpy as np
import pytest
import torch

from mixdet.deploy.export import SUFFIXES, export, export_metadata
from mixdet.deploy.exported import ExportedDetector, format_of, load_exported
from mixdet.deploy.inference import Detector
from mixdet.errors import UserError
from mixdet.registry import MODELS


@pytest.fixture(scope='module')
def file(tiny, tmp_path_factory):
    """An exported file with NMS, for 160x160 px."""
    path = tmp_path_factory.mktemp('exported') / 'a.torchscript'
    detector = Detector(*tiny, fuse=False)
    export(detector, export_metadata(detector, tiny[0], True), path, 'torchscript')
    return path


@pytest.mark.parametrize('suffix', SUFFIXES.values())
def test_other_files_are_refused(tmp_path, suffix):
    if suffix == '.onnx':
        pytest.importorskip('onnxruntime')
    (tmp_path / f'a{suffix}').write_bytes(b'nothing')
    with pytest.raises(UserError, match='is not a detector exported by'):
        load_exported(tmp_path / f'a{suffix}')
    with pytest.raises(UserError, match='does not exist'):
        load_exported(tmp_path / f'gone{suffix}')
    with pytest.raises(UserError, match='must end in one of .onnx, .torchscript, .pt2'):
        load_exported(__file__)


def test_other_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(tmp_path / 'b.torchscript'))
    with pytest.raises(UserError, match='is not a detector exported by'):
        load_exported(tmp_path / 'b.torchscript')


def test_format_is_known_by_the_suffix():
    assert (format_of('a/b.onnx'), format_of('b.pt2'), format_of('b.pth')) == ('onnx', 'torch-export', None)


def test_an_exported_file_is_a_detector(tiny, file, demo_images):
    """Its detections are the original's, in px of the original image or, without rescale, of the input."""
    detector = Detector(*tiny, score_thr=0.0)
    wide = np.concatenate([demo_images[0], demo_images[1]], 1)
    images = [demo_images[0], wide]
    expected = detector.predict(images)
    detector.model = MODELS.build(
        dict(type='mixdet.ExportedDetector', file=str(file), data_preprocessor=detector.cfg.model.data_preprocessor)
    )
    assert isinstance(detector.model, ExportedDetector)
    for found, wanted in zip(detector.predict(images), expected):
        assert len(found) == len(wanted) == 10
        assert [one.label for one in found] == [one.label for one in wanted]
        np.testing.assert_allclose([one.box for one in found], [one.box for one in wanted], atol=0.01)
    samples = detector.predict_samples(images)
    inputs = detector.preprocess(images)
    with torch.inference_mode():
        unscaled = detector.model.predict(inputs, copy.deepcopy(samples), rescale=False)
    scale = samples[1].scale_factor
    assert scale[0] != scale[1]
    for sample, other in zip(samples, unscaled):
        factor = torch.tensor(sample.scale_factor).repeat(2)
        torch.testing.assert_close(sample.pred_instances.bboxes * factor, other.pred_instances.bboxes)


def test_rows_with_score_0_are_no_detections(tiny, file, demo_images):
    detector = Detector(*tiny, score_thr=0.0)
    detector.model = ExportedDetector(str(file), detector.cfg.model.data_preprocessor)
    boxes, labels = np.zeros((1, 3, 4), np.float32), np.array([[1, 0, 2]])
    detector.model.run = lambda images: (boxes, np.float32([[0.9, 0.0, 0.4]]), labels)
    (sample,) = detector.predict_samples(demo_images[:1])
    assert sample.pred_instances.labels.tolist() == [1, 2]


def test_what_an_exported_detector_cannot_do(file):
    detector = ExportedDetector(str(file))
    for size in ((160, 128), (128, 160)):
        with pytest.raises(UserError, match=f'for 160x160 px, but the images of the config have {size[0]}x{size[1]}'):
            detector.predict(torch.zeros(1, 3, *size), [])
    with pytest.raises(NotImplementedError, match='cannot be trained'):
        detector.loss(torch.zeros(1, 3, 160, 160), [])
    with pytest.raises(NotImplementedError, match='has no features'):
        detector.extract_feat(torch.zeros(1, 3, 160, 160))
    outputs = detector(torch.zeros(1, 3, 160, 160), mode='tensor')
    assert [output.shape for output in outputs] == [(1, 10, 4), (1, 10), (1, 10)]
