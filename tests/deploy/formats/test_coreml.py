import json
import sys

import numpy as np
import pytest
from device_formats import needs, write

from mixdet.deploy.exported import ExportedDetector, load_exported
from mixdet.deploy.formats import FORMATS, coreml
from mixdet.deploy.formats.base import PRECISIONS, file_size
from mixdet.errors import UserError

pytestmark = pytest.mark.slow
converter = needs('coremltools')


@pytest.fixture(scope='module')
def packages(tiny, tmp_path_factory, demo_images):
    """The paths of a detector in each precision, and the metadata of the last."""
    folder = tmp_path_factory.mktemp('coreml')
    paths = {precision: folder / f'{precision}.mlpackage' for precision in PRECISIONS}
    return paths, [write(tiny, path, demo_images, precision) for precision, path in paths.items()][-1]


def operations(path):
    """Type, and the type of the first output, of each operation of the model."""
    import coremltools as ct

    (function,) = ct.utils.load_spec(str(path)).mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    return [(part.type, part.outputs[0].type.tensorType) for part in block.operations]


@converter
def test_structure(packages):
    """Nothing runs here: operations, shapes, types and sizes are what there is to check."""
    import coremltools as ct

    paths, metadata = packages
    sizes = []
    for precision, path in paths.items():
        spec = ct.utils.load_spec(str(path))
        (image,) = spec.description.input
        shapes = {entry.name: list(entry.type.multiArrayType.shape) for entry in spec.description.output}
        assert image.name == 'image' and list(image.type.multiArrayType.shape) == [1, 3, 160, 160]
        assert set(shapes) == {'boxes', 'scores'}
        kinds = operations(path)
        assert sum(kind == 'conv' for kind, _ in kinds) > 50 and not any('nms' in kind for kind, _ in kinds)
        half = ct.proto.MIL_pb2.FLOAT16
        assert all((output.dataType == half) == (precision != 'fp32') for kind, output in kinds if kind == 'conv')
        # decoding stays in float32
        assert all(output.dataType != half for kind, output in kinds if kind == 'exp')
        assert any('constexpr' in kind for kind, _ in kinds) == (precision == 'int8')
        sizes.append(file_size(path))
    assert sizes[0] > 1.5 * sizes[1] > 1.5 * sizes[2]
    assert metadata.thresholds.max_per_img == 10 and not metadata.nms


@converter
def test_metadata_are_read_and_nothing_runs_elsewhere(packages):
    paths, metadata = packages
    run, found = load_exported(paths['int8'])
    assert found == metadata and not FORMATS['coreml'].runs_here
    with pytest.raises(UserError, match='runs on macOS only'):
        run(np.zeros((1, 3, 160, 160), np.float32))
    assert ExportedDetector(str(paths['fp32'])).metadata == metadata


def change(path, edit):
    import coremltools as ct

    model = path / 'Data/com.apple.CoreML/model.mlmodel'
    spec = ct.proto.Model_pb2.Model()
    spec.ParseFromString(model.read_bytes())
    edit(spec)
    model.write_bytes(spec.SerializeToString())


@pytest.fixture
def package(packages, tmp_path):
    import shutil

    return shutil.copytree(packages[0]['fp32'], tmp_path / 'a.mlpackage')


def elsewhere(spec):
    for value in coreml._messages(spec, 'BlobFileValue'):
        value.fileName = '/etc/passwd'


@converter
@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (elsewhere, 'refers to other files'),
        (lambda spec: setattr(spec.description.output[0], 'name', 'other'), 'it has other inputs or outputs'),
        (lambda spec: spec.description.metadata.userDefined.clear(), 'is not a detector exported by'),
        (lambda spec: spec.ClearField('mlProgram'), 'it has other inputs or outputs'),
        (
            lambda spec: spec.description.metadata.userDefined.update(mixdet=json.dumps(dict(classes=['a']))),
            'is not a detector exported by',
        ),
    ],
)
def test_other_packages_are_refused(package, edit, message):
    change(package, edit)
    with pytest.raises(UserError, match=message) as error:
        load_exported(package)
    assert '\n' not in str(error.value)


@converter
def test_damaged_packages_are_refused(package):
    model = package / 'Data/com.apple.CoreML/model.mlmodel'
    content, rng = model.read_bytes(), np.random.default_rng(0)
    for name in ('Manifest.json', 'Data/com.apple.CoreML/model.mlmodel'):
        whole = (package / name).read_bytes()
        for end in rng.integers(len(whole), size=10):
            (package / name).write_bytes(whole[:end])
            with pytest.raises(UserError, match='is not a detector exported by') as error:
                load_exported(package)
            assert '\n' not in str(error.value)
        (package / name).write_bytes(whole)
    (package / 'link').symlink_to('/etc/passwd')
    with pytest.raises(UserError, match='refers to other files'):
        load_exported(package)
    assert model.read_bytes() == content


def test_packages_are_needed(tiny, tmp_path, demo_images, monkeypatch):
    monkeypatch.setitem(sys.modules, 'coremltools', None)
    with pytest.raises(UserError, match=r"--format coreml: .*pip install -e '\.\[coreml\]'"):
        write(tiny, tmp_path / 'a.mlpackage', demo_images)
    assert not list(tmp_path.iterdir())
    (tmp_path / 'a.mlpackage').mkdir()
    with pytest.raises(UserError, match='needs coremltools, which is not installed: pip install coremltools'):
        load_exported(tmp_path / 'a.mlpackage')
