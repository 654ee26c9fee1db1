import json

import pytest

from mixdet.deploy.formats.sidecar import read_sidecar, sidecar_path, write_sidecar
from mixdet.errors import UserError

CONTENT = dict(classes=['a'], nms=False)


def write(place, kind):
    path = place / 'a.bin'
    if kind == 'folder':
        path.mkdir()
        (path / 'weights').write_bytes(b'123')
    else:
        path.write_bytes(b'123')
    write_sidecar(path, CONTENT)
    return path


@pytest.mark.parametrize('kind', ['file', 'folder'])
def test_metadata_beside_a_file_and_in_a_folder(tmp_path, kind):
    path = write(tmp_path, kind)
    assert read_sidecar(path) == CONTENT
    where = sidecar_path(path).relative_to(tmp_path).as_posix()
    assert where == ('a.bin.json' if kind == 'file' else 'a.bin/mixdet.json')
    changed = path / 'weights' if kind == 'folder' else path
    changed.write_bytes(b'124')
    with pytest.raises(UserError, match=r'json belongs to another file than .*a\.bin, or that was changed'):
        read_sidecar(path)


def test_a_file_too_many_or_of_another_name_in_a_folder(tmp_path):
    path = write(tmp_path, 'folder')
    (path / 'more').touch()
    with pytest.raises(UserError, match='belongs to another file'):
        read_sidecar(path)
    (path / 'more').unlink()
    (path / 'weights').rename(path / 'other')
    with pytest.raises(UserError, match='belongs to another file'):
        read_sidecar(path)


@pytest.mark.parametrize('text', ['', '{', '[]', '1', json.dumps(CONTENT), '\ud800', '[' * 10**5])
def test_broken_metadata(tmp_path, text):
    path = write(tmp_path, 'file')
    sidecar_path(path).write_bytes(text.encode('utf-8', 'surrogatepass'))
    with pytest.raises(UserError, match='is damaged or was not written by') as error:
        read_sidecar(path)
    assert '\n' not in str(error.value)


def test_missing_metadata(tmp_path):
    path = write(tmp_path, 'file')
    sidecar_path(path).unlink()
    with pytest.raises(UserError, match=r'a\.bin has no metadata: .*a\.bin\.json is missing; keep the two together'):
        read_sidecar(path)
