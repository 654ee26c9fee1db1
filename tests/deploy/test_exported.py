import contextlib
import copy
import json
import os
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import needs_torch

from mixdet.compat import checkpoints
from mixdet.deploy.export import export, export_metadata
from mixdet.deploy.exported import ExportedDetector, load_exported
from mixdet.deploy.formats import FORMATS, format_of
from mixdet.deploy.formats.base import Metadata
from mixdet.deploy.formats.torchscript import METADATA
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


@pytest.mark.parametrize('row', FORMATS.values(), ids=FORMATS)
def test_other_files_are_refused(tmp_path, row):
    if row.extra:
        pytest.importorskip(row.runtime.replace('-', '_'))
    suffix, refused = row.suffix, 'is not a detector exported by|has no metadata'
    (tmp_path / f'a{suffix}').write_bytes(b'nothing')
    with pytest.raises(UserError, match=refused):
        load_exported(tmp_path / f'a{suffix}', trusted=True)
    with pytest.raises(UserError, match='does not exist'):
        load_exported(tmp_path / f'gone{suffix}')
    (tmp_path / f'b{suffix}').mkdir()
    with pytest.raises(UserError, match=refused):
        load_exported(tmp_path / f'b{suffix}', trusted=True)
    with pytest.raises(UserError, match='must end in one of .onnx, .openvino, .ncnn, '):
        load_exported(__file__)


def test_other_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(tmp_path / 'b.torchscript'))
    with pytest.raises(UserError, match='is not a detector exported by'):
        load_exported(tmp_path / 'b.torchscript', trusted=True)


METADATA_OF_ALL = Metadata(('a',), (8, 8), (0.0,) * 3, (1.0,) * 3, 'Resize', True, 'c')


class Writer(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file('hacked', True, 4, dtype=torch.uint8).fill_(65)[0]


class Plain(torch.nn.Module):
    def forward(self, x):
        return 2 * x


class Attack:
    def __reduce__(self):
        return os.system, ('touch hacked',)


def write_script(path):
    """A TorchScript file that writes another file when it runs."""
    torch.jit.script(Writer()).save(str(path), _extra_files={METADATA: json.dumps(METADATA_OF_ALL.to_json())})


def write_program(path, change):
    """An exported program whose parts ``change`` has seen: name and content."""
    batch = {0: torch.export.Dim('batch', min=1)}
    whole = path.with_name('whole.pt2')
    program = torch.export.export(Plain(), (torch.zeros(2, 3),), dynamic_shapes=(batch,), strict=False)
    torch.export.save(program, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, 'w') as file:
        for name in source.namelist():
            file.writestr(name, change(name, source.read(name)))


def with_pickle(name, content):
    if 'sample_inputs' not in name:
        return content
    torch.save(Attack(), 'inputs.pt')
    return Path('inputs.pt').read_bytes()


def with_size(name, content):
    code = json.dumps("__import__('os').system('touch hacked')").encode()
    return re.sub(rb'("expr_str": ?)"[^"]*"', lambda match: match[1] + code, content)


PROGRAMS = {
    'b.torchscript': write_script,
    'pickle.pt2': lambda path: write_program(path, with_pickle),
    'size.pt2': lambda path: write_program(path, with_size),
}


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=needs_torch('2.6') if name.endswith('.pt2') else ()) for name in PROGRAMS]
)
def test_programs_run_only_if_they_are_trusted(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    PROGRAMS[name](tmp_path / name)
    for open_file in (load_exported, ExportedDetector):
        with pytest.raises(UserError, match=f'{name} is a program.* use an .onnx file, .*--unsafe-load') as error:
            open_file(name)
        assert '\n' not in str(error.value) and not os.path.exists('hacked')
    monkeypatch.setattr(checkpoints, '_trusted', True)
    with contextlib.suppress(Exception):  # a file need not be one of ours to do harm
        load_exported(name)[0](np.zeros(1, np.float32))
    assert os.path.exists('hacked'), 'this file would not have been a danger'


def write_onnx(path, external=None, word='a', op='Add'):
    """x + 1, of which the 1 may be in a file beside it."""
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    one = onnx.helper.make_tensor('one', onnx.TensorProto.FLOAT, [1], [1.0])
    if external:
        one.ClearField('float_data')
        one.data_location = onnx.TensorProto.EXTERNAL
        for key, value in dict(location=external, length='4').items():
            one.external_data.add(key=key, value=value)
    of = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ('image', 'boxes')]
    graph = onnx.helper.make_graph([onnx.helper.make_node(op, ['image', 'one'], ['boxes'])], 'g', of[:1], of[1:], [one])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 18)], ir_version=9)
    metadata = METADATA_OF_ALL._replace(classes=(word,)).to_json()
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(model, values)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize('external', ['weights.bin', '/etc/passwd', '../weights.bin', '*/_ORT_MEM_ADDR_/*'])
def test_onnx_that_names_other_files_is_refused(tmp_path, external):
    (tmp_path / 'weights.bin').write_bytes(np.float32(1).tobytes())
    write_onnx(tmp_path / 'a.onnx', external)
    with pytest.raises(UserError, match='a.onnx refers to other files'):
        load_exported(tmp_path / 'a.onnx')


def test_onnx_of_another_kind_is_refused(tmp_path):
    write_onnx(tmp_path / 'a.onnx', op='EPContext')
    (tmp_path / 'b.onnx').write_bytes(b'1234ORTM' + bytes(100))
    for name in 'ab':
        with pytest.raises(UserError, match=f'{name}.onnx refers to other files, or is not in the format ONNX'):
            load_exported(tmp_path / f'{name}.onnx')


def test_a_class_may_be_called_location(tmp_path, monkeypatch):
    write_onnx(tmp_path / 'a.onnx', word='location')
    run, metadata = load_exported(tmp_path / 'a.onnx')
    assert metadata.classes == ('location',) and run(np.ones(1, np.float32))[0] == 2
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(UserError, match='may refer to other files, which only onnx can tell'):
        load_exported(tmp_path / 'a.onnx')


def test_format_is_known_by_the_suffix():
    assert [format_of(f'a/b{suffix}') for suffix in ('.onnx', '.pt2', '.pth')] == [
        FORMATS['onnx'],
        FORMATS['torch-export'],
        None,
    ]


def test_an_exported_file_is_a_detector(tiny, file, demo_images):
    """Its detections are the original's, in px of the original image or, without rescale, of the input."""
    detector = Detector(*tiny, score_thr=0.0)
    wide = np.concatenate([demo_images[0], demo_images[1]], 1)
    images = [demo_images[0], wide]
    expected = detector.predict(images)
    detector.model = MODELS.build(
        dict(
            type='mixdet.ExportedDetector',
            file=str(file),
            data_preprocessor=detector.cfg.model.data_preprocessor,
            trusted=True,
        )
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
    detector.model = ExportedDetector(str(file), detector.cfg.model.data_preprocessor, trusted=True)
    boxes, labels = np.zeros((1, 3, 4), np.float32), np.array([[1, 0, 2]])
    detector.model.run = lambda images: (boxes, np.float32([[0.9, 0.0, 0.4]]), labels)
    (sample,) = detector.predict_samples(demo_images[:1])
    assert sample.pred_instances.labels.tolist() == [1, 2]


def test_what_an_exported_detector_cannot_do(file):
    detector = ExportedDetector(str(file), trusted=True)
    for size in ((160, 128), (128, 160)):
        with pytest.raises(UserError, match=f'for 160x160 px, but the images of the config have {size[0]}x{size[1]}'):
            detector.predict(torch.zeros(1, 3, *size), [])
    with pytest.raises(NotImplementedError, match='cannot be trained'):
        detector.loss(torch.zeros(1, 3, 160, 160), [])
    with pytest.raises(NotImplementedError, match='has no features'):
        detector.extract_feat(torch.zeros(1, 3, 160, 160))
    outputs = detector(torch.zeros(1, 3, 160, 160), mode='tensor')
    assert [output.shape for output in outputs] == [(1, 10, 4), (1, 10), (1, 10)]


def test_detector_takes_an_exported_file(tiny, file, demo_images, monkeypatch):
    with pytest.raises(UserError, match=r'a\.torchscript is a program'):
        Detector(tiny[0], file)
    monkeypatch.setattr(checkpoints, '_trusted', True)
    detectors = Detector(*tiny, score_thr=0.0), Detector(tiny[0], file, score_thr=0.0)
    assert isinstance(detectors[1].model, ExportedDetector) and 'ExportedDetector on cpu, 4 classes' in repr(
        detectors[1]
    )
    for found, wanted in zip(*(detector.predict(demo_images) for detector in detectors)):
        assert [one.name for one in found] == [one.name for one in wanted]
        np.testing.assert_allclose([one.box for one in found], [one.box for one in wanted], atol=0.01)
    for options in (dict(agnostic_nms=True), dict(device='cuda')):
        with pytest.raises(UserError, match='is not for an exported file'):
            Detector(tiny[0], file, **options)
    with pytest.raises(UserError, match='an exported file cannot be exported again'):
        export_metadata(detectors[1], 'c.py', True)


def test_nms_outside_needs_its_thresholds(tiny, tmp_path):
    detector = Detector(*tiny, fuse=False)
    path = tmp_path / 'a.torchscript'
    export(detector, export_metadata(detector, 'c.py', False), path, 'torchscript')
    assert ExportedDetector(str(path), trusted=True).metadata.thresholds.max_per_img == 10
    detector.model.test_cfg.nms.type = 'soft_nms'
    path = tmp_path / 'b.torchscript'
    export(detector, export_metadata(detector, 'c.py', False), path, 'torchscript')
    with pytest.raises(UserError, match='has neither NMS nor the thresholds for it'):
        ExportedDetector(str(path), trusted=True)
