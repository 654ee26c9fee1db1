import os
import random
from pathlib import Path

import mmcv
import numpy as np
import pytest
from helpers import little_room

from mixdet.engine.outputs import JPEG, OutputFolder, common_folder, relative_path
from mixdet.errors import UserError

IMAGE = np.full((8, 10, 3), (20, 120, 220), np.uint8)


def test_each_gets_a_file_of_its_own(tmp_path):
    folder = OutputFolder(tmp_path / 'out')
    names = {
        'a.jpg': 'a.jpg',
        'a.png': 'a.png.jpg',
        'a.png.jpg': 'a.png_2.jpg',
        'IMG_1.JPG': 'IMG_1.JPG',
        'b.jpeg': 'b.jpeg',
        'b': 'b.jpg',
        'deep/a.jpg': 'deep/a.jpg',
        'a.jpg/c.jpg': 'a.jpg_c.jpg',  # the folder's name is taken by a file
    }
    for name, expected in names.items():
        assert folder.write_image(Path(name), IMAGE) == tmp_path / 'out' / expected
    assert folder.write_image(Path('a.jpg'), IMAGE) == tmp_path / 'out/a_2.jpg'
    assert folder.write_image(Path('a.jpg'), IMAGE) == tmp_path / 'out/a_3.jpg'
    assert folder.create(Path('pan.mp4'), ('.mp4',)).name == 'pan.mp4'
    assert folder.create(Path('pan.avi'), ('.mp4',)).name == 'pan.avi.mp4'
    for path in (tmp_path / 'out').rglob('*.jp*g'):
        assert path.is_dir() or abs(mmcv.imread(str(path)).astype(int) - IMAGE).max() < 8


def test_names_that_opencv_does_not_take(tmp_path):
    folder = OutputFolder(tmp_path / os.fsdecode(b'd\xe9j\xe0'))
    path = folder.write_image(Path(os.fsdecode(b'\xe9t\xe9.jpg')), IMAGE)
    assert os.fsencode(path).endswith(b'd\xe9j\xe0/\xe9t\xe9.jpg') and path.stat().st_size > 100
    long = folder.write_image(Path('文' * 83 + '.png'), IMAGE)  # 249 bytes and the suffix
    assert long.name.startswith('文' * 70) and long.stat().st_size > 100


def test_nothing_of_the_user_changes(tmp_path):
    """Random inputs, with .., links and files that are there already: no file outside changes, none is lost inside."""
    rng = random.Random(0)
    parts = ['..', '.', 'a', 'b', 'a.jpg', 'a.png', 'link', 'here', 'IMG.JPG', os.fsdecode(b'\xe9.jpg'), 'x' * 300]
    user, out = tmp_path / 'user', tmp_path / 'out'
    for folder in (user, out / 'a'):
        folder.mkdir(parents=True)
        for name in ('a.jpg', 'a.png', 'b', 'a.png.jpg'):
            (folder / name).write_text('mine')
    (out / 'link').symlink_to(user)
    (out / 'here').symlink_to(user / 'a.jpg')
    folder, written = OutputFolder(out), []
    for _ in range(300):
        path = user.joinpath(*rng.choices(parts, k=rng.randint(1, 4)))
        root = common_folder([path, user / 'a.jpg'])
        written.append(folder.write_image(relative_path(path, root), IMAGE))
        assert written[-1].resolve().is_relative_to(out) and '..' not in written[-1].parts
    assert len(set(written)) == 300 and all(path.stat().st_size > 100 for path in written)
    assert sorted(path.name for path in user.iterdir()) == ['a.jpg', 'a.png', 'a.png.jpg', 'b']
    mine = [folder / name for folder in (user, out / 'a') for name in ('a.jpg', 'a.png', 'b', 'a.png.jpg')]
    assert {path.read_text() for path in mine} == {'mine'}


def test_large_images_are_png(tmp_path):
    path = OutputFolder(tmp_path).write_image(Path('wide.jpg'), np.zeros((1, 70_000, 3), np.uint8))
    assert path.name == 'wide.jpg.png' and mmcv.imread(str(path)).shape == (1, 70_000, 3)


def test_a_failure_is_named_and_leaves_no_file(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='file/a.jpg cannot be written: '):
        OutputFolder(tmp_path / 'file').write_image(Path('a.jpg'), IMAGE)
    with little_room(100), pytest.raises(UserError, match='b.jpg cannot be written: File too large'):
        OutputFolder(tmp_path).write_image(Path('b.jpg'), IMAGE)
    with pytest.raises(UserError, match='c.jpg cannot be written'):
        OutputFolder(tmp_path).write_image(Path('c.jpg'), np.zeros((0, 5, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_names_that_another_system_takes_for_one(tmp_path):
    """Case, and letters composed in another way: the files can be copied to Windows and macOS."""
    (tmp_path / 'Mine.JPG').write_text('mine')
    (tmp_path / 'Folder').mkdir()
    (tmp_path / 'Folder/Mine.jpg').write_text('mine')
    folder = OutputFolder(tmp_path)
    names = {
        'a.jpg': 'a.jpg',
        'A.jpg': 'A_2.jpg',
        'a.JPG': 'a_3.JPG',
        'caf\u00e9.jpg': 'caf\u00e9.jpg',
        'cafe\u0301.jpg': 'cafe\u0301_2.jpg',
        'CAF\u00c9.jpg': 'CAF\u00c9_3.jpg',
        'stra\u00dfe.jpg': 'stra\u00dfe.jpg',
        'STRASSE.jpg': 'STRASSE_2.jpg',
        'mine.jpg': 'mine_2.jpg',
        'folder/mine.jpg': 'folder/mine_2.jpg',
        'A.JPG/b.jpg': 'A.JPG_b.jpg',  # elsewhere the folder would be a file
        'b.jpg/c.jpg': 'b.jpg/c.jpg',
        'B.jpg': 'B_2.jpg',  # and the file a folder
    }
    for name, expected in names.items():
        assert str(folder.write_image(Path(name), IMAGE).relative_to(tmp_path)) == expected
    assert (tmp_path / 'Mine.JPG').read_text() == (tmp_path / 'Folder/Mine.jpg').read_text() == 'mine'


def test_a_name_many_times_and_links_without_end(tmp_path):
    (tmp_path / 'loop').symlink_to('loop')
    (tmp_path / 'nowhere.jpg').symlink_to(tmp_path / 'gone.jpg')
    folder = OutputFolder(tmp_path)
    files = [folder.create(Path('a.jpg'), JPEG) for _ in range(3000)]  # slow if each looked for its number
    assert len(set(files)) == 3000 and files[-1].name == 'a_3000.jpg'
    assert folder.create(Path('loop/a.jpg'), JPEG).name == 'loop_a.jpg'
    assert folder.create(Path('nowhere.jpg'), JPEG).name == 'nowhere_2.jpg' and not (tmp_path / 'gone.jpg').exists()


def test_folders():
    assert common_folder([Path('/a/b/c.jpg'), Path('/a/b/../d/e.jpg')]) == Path('/a')
    assert common_folder([]) is None and common_folder([Path('x.jpg')]) == Path.cwd()
    assert relative_path(Path('/a/b/../d/e.jpg'), Path('/a')) == Path('d/e.jpg')
    assert relative_path(Path('/a/b.jpg'), Path('/c')) == relative_path(Path('/a/b.jpg'), None) == Path('b.jpg')
    assert JPEG[0] == '.jpg'


def test_the_folder_above_behind_a_link(tmp_path):
    (tmp_path / 'data/deep').mkdir(parents=True)
    (tmp_path / 'link').symlink_to(tmp_path / 'data/deep')
    above = tmp_path / 'link/../a.jpg'  # data/a.jpg
    assert common_folder([above, tmp_path / 'data/b.jpg']) == tmp_path / 'data'
    assert relative_path(above, tmp_path) == Path('data/a.jpg')
    assert relative_path(tmp_path / 'link/a.jpg', tmp_path) == Path('link/a.jpg')  # as the user names it


def test_files_that_others_write_meanwhile_stay(tmp_path):
    """As another process of a distributed test does, after this one has looked into the folder."""
    folder = OutputFolder(tmp_path)
    assert folder.create(Path('a.jpg'), ('.jpg',)) == tmp_path / 'a.jpg'
    (tmp_path / 'b.jpg').write_text('mine')
    assert folder.create(Path('b.jpg'), ('.jpg',)) == tmp_path / 'b_2.jpg'
    assert (tmp_path / 'b.jpg').read_text() == 'mine'
