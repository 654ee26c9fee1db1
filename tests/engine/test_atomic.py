import os

import pytest

from mixdet.engine.atomic import atomic_path, new_file, write_text
from mixdet.errors import UserError


def test_the_old_content_stays_until_the_new_is_whole(tmp_path):
    path = tmp_path / 'a'
    write_text(path, 'old')
    with pytest.raises(ZeroDivisionError), atomic_path(path) as partial:
        partial.write_text('ne')
        assert path.read_text() == 'old' and partial == tmp_path / '.a.partial'
        1 / 0  # noqa: B018
    assert path.read_text() == 'old' and [file.name for file in tmp_path.iterdir()] == ['a']
    write_text(path, 'new')
    assert path.read_text() == 'new' and [file.name for file in tmp_path.iterdir()] == ['a']


def test_file_and_folder_are_synced_around_the_rename(tmp_path, monkeypatch):
    """The folder as well: else a machine that fails may forget the rename, and with it the file."""
    calls = []
    folder = tmp_path.stat().st_ino

    def sync(descriptor):
        calls.append('folder' if os.fstat(descriptor).st_ino == folder else 'file')

    replace = os.replace
    monkeypatch.setattr('os.fsync', sync)
    monkeypatch.setattr('os.replace', lambda *paths: (calls.append('rename'), replace(*paths)))
    write_text(tmp_path / 'a', 'x')
    assert calls == ['file', 'rename', 'folder']


def test_systems_that_cannot_open_folders_write_too(tmp_path, monkeypatch):
    open_ = os.open

    def no_folders(path, *args, **options):
        if os.path.isdir(path):
            raise PermissionError(path)  # Windows
        return open_(path, *args, **options)

    monkeypatch.setattr('os.open', no_folders)
    write_text(tmp_path / 'a', 'x')
    assert (tmp_path / 'a').read_text() == 'x'


def test_no_descriptor_is_left_open(tmp_path, monkeypatch):
    opened, closed = [], []
    open_, close = os.open, os.close
    monkeypatch.setattr('os.open', lambda *args: opened.append(open_(*args)) or opened[-1])
    monkeypatch.setattr('os.close', lambda descriptor: (closed.append(descriptor), close(descriptor)))
    monkeypatch.setattr('os.fsync', lambda descriptor: (_ for _ in ()).throw(OSError) if opened else None)
    write_text(tmp_path / 'a', 'x')
    assert len(opened) == 1 and closed == opened


@pytest.mark.parametrize('links', [True, False])
def test_a_new_file_is_there_when_it_is_whole(tmp_path, monkeypatch, links):
    def no_links(*paths):
        raise PermissionError(1, 'Operation not permitted')

    if not links:
        monkeypatch.setattr('os.link', no_links)
    path = tmp_path / 'a.onnx'
    with pytest.raises(ZeroDivisionError), new_file(path) as part:
        assert part.name == 'a.onnx' and part.parent.parent == tmp_path
        part.write_text('float')
        1 / 0  # noqa: B018
    assert not list(tmp_path.iterdir())
    with new_file(path) as part:
        part.write_text('whole')
        assert not path.exists()
    assert path.read_text() == 'whole' and [file.name for file in tmp_path.iterdir()] == ['a.onnx']


def test_a_new_file_replaces_none(tmp_path):
    path = tmp_path / 'a.onnx'
    with pytest.raises(UserError, match='a.onnx exists already'), new_file(path) as part:
        part.write_text('ours')
        path.write_text('mine')
    assert path.read_text() == 'mine' and [file.name for file in tmp_path.iterdir()] == ['a.onnx']
    with pytest.raises(UserError, match='gone: No such file'), new_file(tmp_path / 'gone/a.onnx'):
        pass
