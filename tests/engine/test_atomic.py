import os
import stat

import pytest

from mixdet.engine.atomic import (
    atomic_path,
    check_new,
    make_folder,
    new_file,
    new_files,
    remove_leftovers,
    write_new_text,
    write_text,
)
from mixdet.errors import UserError


def test_the_old_content_stays_until_the_new_is_whole(tmp_path):
    path = tmp_path / 'a'
    write_text(path, 'old')
    with pytest.raises(ZeroDivisionError), atomic_path(path) as partial:
        partial.write_text('ne')
        assert path.read_text() == 'old' and partial.name == 'a' and partial.parent.parent == tmp_path
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
    monkeypatch.setattr('os.fsync', lambda descriptor: (_ for _ in ()).throw(OSError) if len(opened) > 1 else None)
    write_text(tmp_path / 'a', 'x')
    assert opened and sorted(closed) == sorted(opened)


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
    with (
        pytest.raises(UserError, match='gone/a.onnx cannot be written: No such file'),
        new_file(tmp_path / 'gone/a.onnx'),
    ):
        pass
    with pytest.raises(UserError, match='b cannot be written: No space left on device'), new_file(tmp_path / 'b'):
        raise OSError(28, 'No space left on device')
    (tmp_path / 'link').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(UserError, match='link exists already'):
        write_new_text(tmp_path / 'link', 'ours')
    assert sorted(file.name for file in tmp_path.iterdir()) == ['a.onnx', 'link']


@pytest.mark.parametrize('links', [True, False])
def test_no_file_is_replaced_even_without_links(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr('os.link', lambda *paths: (_ for _ in ()).throw(PermissionError(1, 'not permitted')))
    (tmp_path / 'a').write_text('mine')
    with pytest.raises(UserError, match='a exists already'):
        write_new_text(tmp_path / 'a', 'ours')
    assert (tmp_path / 'a').read_text() == 'mine' and len(list(tmp_path.iterdir())) == 1


def test_links_are_not_followed(tmp_path):
    """Those that lie where earlier versions wrote, and one in the place of the file itself."""
    mine, path = tmp_path / 'mine', tmp_path / 'epoch_3.pth'
    mine.write_text('mine')
    planted = tmp_path / '.epoch_3.pth.partial'
    planted.symlink_to(mine)
    write_text(path, 'ours')
    assert mine.read_text() == 'mine' and path.read_text() == 'ours' and planted.is_symlink()
    path.unlink()
    path.symlink_to(mine)
    write_text(path, 'ours')
    assert mine.read_text() == 'mine' and path.read_text() == 'ours' and not path.is_symlink()


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'pipe')  # as /dev/stdout is
    for name in ('pipe', 'folder', 'link'):
        with pytest.raises(OSError, match='it is a folder' if name == 'folder' else 'it is no ordinary file'):
            write_text(tmp_path / name, 'x')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['folder', 'link', 'pipe']


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_modes(tmp_path):
    old = os.umask(0o027)
    try:
        write_text(tmp_path / 'a', 'x')
        write_new_text(tmp_path / 'b', 'x')
        assert mode(tmp_path / 'a') == mode(tmp_path / 'b') == 0o640
        for kept in (0o604, 0o660, 0o444):
            (tmp_path / 'a').chmod(kept)
            write_text(tmp_path / 'a', 'y')
            assert mode(tmp_path / 'a') == kept
    finally:
        os.umask(old)


def test_owner_and_group(tmp_path, monkeypatch):
    """Kept; where the group cannot be, its rights go, which were not meant for another one."""
    path = tmp_path / 'a'
    write_text(path, 'x')
    path.chmod(0o664)
    changes, lstat = [], os.lstat

    def of_others(name, *args, **kwargs):
        status = lstat(name, *args, **kwargs)
        return os.stat_result((*status[:4], 12345, 54321, *status[6:])) if name == path else status

    monkeypatch.setattr('os.lstat', of_others)
    monkeypatch.setattr('os.chown', lambda name, *ids: changes.append(ids))
    write_text(path, 'y')
    assert changes == [(12345, -1), (-1, 54321)] and mode(path) == 0o664

    def refused(*args):
        raise PermissionError

    monkeypatch.setattr('os.chown', refused)
    write_text(path, 'z')
    assert path.read_text() == 'z' and mode(path) == 0o604


def test_what_killed_runs_left(tmp_path):
    (tmp_path / '.a.pth.x1_yz2w4.partial').mkdir()
    (tmp_path / '.a.pth.x1_yz2w4.partial/a.pth').touch()
    (tmp_path / 'mine').mkdir()
    (tmp_path / '.b.pth.partial').symlink_to(tmp_path / 'mine')
    (tmp_path / '.film.partial').mkdir()  # of another program
    (tmp_path / '.epoch_1.pth.partial').touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.film.partial', 'mine']


def test_checks_before_the_work(tmp_path):
    check_new(tmp_path / 'a', '--out')
    (tmp_path / 'a').symlink_to('nowhere')
    with pytest.raises(UserError, match=f'^--out {tmp_path}/a exists already; nothing is overwritten'):
        check_new(tmp_path / 'a', '--out')
    make_folder(tmp_path / 'b/c')
    make_folder(tmp_path / 'b/c')
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='folder .*file/c cannot be made: Not a directory'):
        make_folder(tmp_path / 'file/c')


def test_files_that_belong_together(tmp_path):
    """All of them or none, and nothing is replaced."""
    with new_files(tmp_path / 'a') as part:
        part.write_text('whole')
        part.with_name('a.json').write_text('beside')
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {'a': 'whole', 'a.json': 'beside'}
    (tmp_path / 'a.json').unlink()
    with pytest.raises(UserError, match='a exists already'), new_files(tmp_path / 'a') as part:
        part.write_text('other')
        part.with_name('a.json').write_text('other')
    assert [path.read_text() for path in tmp_path.iterdir()] == ['whole']
    with pytest.raises(ZeroDivisionError), new_files(tmp_path / 'b') as part:
        part.write_text('half')
        1 / 0  # noqa: B018
    assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_a_new_folder(tmp_path):
    with new_files(tmp_path / 'a') as part:
        (part / 'inner').mkdir(parents=True)
        (part / 'inner/file').write_text('whole')
    assert (tmp_path / 'a/inner/file').read_text() == 'whole' and len(list(tmp_path.iterdir())) == 1
    for name in ('a', 'link', 'file'):
        if name == 'link':
            (tmp_path / name).symlink_to('gone')
        elif name == 'file':
            (tmp_path / name).write_text('mine')
        with pytest.raises(UserError, match=f'{name} exists already'), new_files(tmp_path / name) as part:
            part.mkdir()
    assert (tmp_path / 'a/inner/file').read_text() == 'whole' and (tmp_path / 'file').read_text() == 'mine'
    with pytest.raises(ZeroDivisionError), new_files(tmp_path / 'b') as part:
        (part / 'inner').mkdir(parents=True)
        1 / 0  # noqa: B018
    assert not list(tmp_path.glob('*b*'))
