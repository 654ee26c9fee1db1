import json
import logging
import multiprocessing
import os
import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations

from mixdet.datasets import cache
from mixdet.datasets.cache import HEADER, PARTIAL, LoadCachedImage
from mixdet.errors import UserError
from mixdet.registry import TRANSFORMS


def write_image(path, height=40, width=60, seed=0, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    cv2.imwrite(str(path), rng.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype=dtype))
    return str(path)


@pytest.fixture
def picture(tmp_path):
    return write_image(tmp_path / 'a.png')


def kept(folder):
    return [path for path in folder.rglob('*') if path.is_file()]


def never(results):
    raise AssertionError('decoded again')


def test_loads_what_mmdetection_loads(tmp_path, picture):
    """At the first reading and from the cache, with every option of ``LoadImageFromFile``."""
    deep = write_image(tmp_path / 'deep.png', dtype=np.uint16)
    for number, options in enumerate((
        {}, dict(to_float32=True), dict(color_type='grayscale'), dict(imdecode_backend='pillow'),
        dict(color_type='unchanged'), dict(color_type='unchanged', to_float32=True),
    )):  # fmt: skip
        expected = LoadImageFromFile(**options)
        load = LoadCachedImage(cache=str(tmp_path / f'cache{number}'), **options)
        for path in (picture, deep):
            wanted = expected(dict(img_path=path, instances=[]))
            for _attempt in range(2):
                found = load(dict(img_path=path, instances=[]))
                assert set(found) == set(wanted)
                assert found['img'].dtype == wanted['img'].dtype and (found['img'] == wanted['img']).all(), options
                assert (found['img_shape'], found['ori_shape']) == (wanted['img_shape'], wanted['ori_shape'])


def test_decodes_once_for_all_processes(tmp_path, picture):
    load = LoadCachedImage(cache=str(tmp_path / 'cache'))
    first = load(dict(img_path=picture))['img']
    again = pickle.loads(pickle.dumps(load))  # as a worker of another process gets it
    again.loader = never
    assert (again(dict(img_path=picture))['img'] == first).all()
    for other in (LoadCachedImage(cache=str(tmp_path / 'cache'), **options) for options in (
        dict(color_type='grayscale'), dict(imdecode_backend='pillow'), dict(min_side=20),
    )):  # fmt: skip
        other(dict(img_path=picture))
    assert len(kept(tmp_path / 'cache')) == 4  # one for each way of decoding


def test_what_a_transform_draws_into_an_image_does_not_stay(tmp_path, picture):
    load = LoadCachedImage(cache=str(tmp_path / 'cache'))
    before = load(dict(img_path=picture))['img'].copy()
    load(dict(img_path=picture))['img'][:] = 0
    assert (load(dict(img_path=picture))['img'] == before).all()


def test_a_changed_image_is_decoded_anew_and_takes_no_more_room(tmp_path, picture):
    load = LoadCachedImage(cache=str(tmp_path / 'cache'))
    load(dict(img_path=picture))
    status = os.stat(picture)
    for change in (dict(seed=1), dict(seed=2, height=30)):
        write_image(picture, **change)
        os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns + change['seed']))
        found = load(dict(img_path=picture))['img']
        assert (found == cv2.imread(picture)).all()
    assert len(kept(tmp_path / 'cache')) == 1


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_never_read(tmp_path_factory, data):
    """Cut at any place, or with another header: decoded anew, and kept whole again."""
    folder = tmp_path_factory.mktemp('damaged')
    picture = write_image(folder / 'a.png', 8, 9)
    load = LoadCachedImage(cache=str(folder / 'cache'))
    expected = load(dict(img_path=picture))['img'].copy()
    (entry,) = kept(folder / 'cache')
    content = entry.read_bytes()
    damage = data.draw(st.sampled_from(['cut', 'longer', 'header']))
    at = data.draw(st.integers(0, len(content) - 1))
    broken = {
        'cut': content[:at],
        'longer': content + b'0',
        'header': data.draw(st.sampled_from([b'', b'{}', b'[]', b'\xff', b'{"source": 1}'])).ljust(HEADER)
        + content[HEADER:],
    }
    entry.write_bytes(broken[damage])
    assert (load(dict(img_path=picture))['img'] == expected).all()
    assert entry.read_bytes() == content


def killed_while_writing(folder, picture):
    os.fsync = lambda descriptor: os.kill(os.getpid(), 9)
    LoadCachedImage(cache=folder)(dict(img_path=picture))


def test_survives_a_kill_while_it_is_built(tmp_path, picture):
    folder = tmp_path / 'cache'
    process = multiprocessing.get_context('fork').Process(target=killed_while_writing, args=(str(folder), picture))
    process.start()
    process.join()
    assert process.exitcode == -9
    (left,) = kept(folder)
    assert left.suffix == PARTIAL
    load = LoadCachedImage(cache=str(folder))
    load.fill([picture])
    assert left in kept(folder) and len(kept(folder)) == 2  # it might be of a process that is still writing
    os.utime(left, (0, 0))
    load.fill([picture])
    assert left not in kept(folder)
    load.loader = never
    assert (load(dict(img_path=picture))['img'] == cv2.imread(picture)).all()


def fill(folder, pictures):
    LoadCachedImage(cache=folder).fill(pictures)


def test_several_processes_build_at_once(tmp_path):
    pictures = [write_image(tmp_path / f'{i}.png', seed=i) for i in range(12)]
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=fill, args=(str(tmp_path / 'cache'), pictures)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    load = LoadCachedImage(cache=str(tmp_path / 'cache'))
    load.loader = never
    for path in pictures:
        assert (load(dict(img_path=path))['img'] == cv2.imread(path)).all()
    assert len(kept(tmp_path / 'cache')) == 12


def test_fill_shows_its_progress_and_does_only_what_is_missing(tmp_path):
    pictures = [write_image(tmp_path / f'{i}.png', seed=i) for i in range(20)]
    (tmp_path / 'broken.png').write_bytes(b'no image')
    seen = []

    def progress(steps):
        seen.append(len(steps))
        return steps

    load = LoadCachedImage(cache=str(tmp_path / 'cache'))
    load.fill([*pictures, *pictures, str(tmp_path / 'broken.png'), str(tmp_path / 'gone.png')], progress)
    assert len(kept(tmp_path / 'cache')) == 20 and seen[0] > 1
    load.fill(pictures, progress)
    assert seen[1] == 0
    with pytest.raises(AssertionError, match='failed to load image'):  # as without a cache
        load(dict(img_path=str(tmp_path / 'broken.png')))
    with pytest.raises(FileNotFoundError):
        load(dict(img_path=str(tmp_path / 'gone.png')))
    assert LoadCachedImage(cache=str(tmp_path / 'cache'), ignore_empty=True)(dict(img_path='gone.png')) is None


def test_stays_within_its_limit_and_says_so_once(tmp_path, caplog):
    pictures = [write_image(tmp_path / f'{i}.png', seed=i) for i in range(6)]
    size = 40 * 60 * 3 + HEADER
    load = LoadCachedImage(cache=str(tmp_path / 'cache'), max_gb=2.5 * size / 1e9)
    with caplog.at_level(logging.WARNING):
        for path in [*pictures, *pictures]:
            assert (load(dict(img_path=path))['img'] == cv2.imread(path)).all()
    assert len(kept(tmp_path / 'cache')) == 2
    (record,) = caplog.records
    assert 'has reached max_gb=' in record.message and 'decoded each time' in record.message
    LoadCachedImage(cache=str(tmp_path / 'cache'), max_gb=2.5 * size / 1e9).fill(pictures)  # what others wrote counts
    assert len(kept(tmp_path / 'cache')) == 2


def test_a_folder_that_cannot_be_written_to(tmp_path, picture, caplog):
    (tmp_path / 'file').write_text('')
    load = LoadCachedImage(cache=str(tmp_path / 'file' / 'cache'))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert (load(dict(img_path=picture))['img'] == cv2.imread(picture)).all()
    assert len(caplog.records) == 1 and 'cannot be written to' in caplog.text


def test_leaves_the_disk_some_room(tmp_path, picture, caplog, monkeypatch):
    monkeypatch.setattr(cache, 'KEEP_FREE', 10**18)
    with caplog.at_level(logging.WARNING):
        assert (LoadCachedImage(cache=str(tmp_path / 'cache'))(dict(img_path=picture))['img'] >= 0).all()
    assert 'less than 1 GB free' in caplog.text and not kept(tmp_path / 'cache')


def test_the_folder(tmp_path, picture, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    LoadCachedImage()(dict(img_path=picture))
    assert len(kept(tmp_path / 'xdg/mixdet/images')) == 1
    LoadCachedImage(cache=False)(dict(img_path=picture))
    LoadCachedImage(cache=False).fill([picture])
    assert len(kept(tmp_path / 'xdg')) == 1 and sorted(path.name for path in tmp_path.iterdir()) == ['a.png', 'xdg']
    with pytest.raises(UserError, match='min_side=0 must be at least 1 px'):
        LoadCachedImage(min_side=0)
    with pytest.raises(UserError, match='max_gb=0 must'):
        LoadCachedImage(max_gb=0)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), side=st.integers(1, 60))
def test_shrinks_to_the_shorter_side_and_never_enlarges(height, width, side):
    image = np.zeros((height, width, 3), np.uint8)
    small = cache._shrunk(image, side)
    if min(height, width) <= side:
        assert small is image
    else:
        assert min(small.shape[:2]) == side
        assert abs(small.shape[0] / height - small.shape[1] / width) <= 0.51 / min(height, width)


def test_boxes_are_those_of_the_shrunk_image(tmp_path):
    path = write_image(tmp_path / 'a.png', 40, 60)
    instances = [dict(bbox=[6, 10, 30, 40], bbox_label=1, ignore_flag=0, mask=[[6, 10, 30, 10, 30, 40]])]
    for _ in range(2):
        load = LoadCachedImage(cache=str(tmp_path / 'cache'), min_side=20)
        results = load(dict(img_path=path, instances=instances, height=40, width=60))
        assert results['img'].shape == (20, 30, 3) and results['img_shape'] == results['ori_shape'] == (20, 30)
        assert results['instances'][0]['bbox'] == [3, 5, 15, 20] and instances[0]['bbox'] == [6, 10, 30, 40]
        np.testing.assert_allclose(results['img'], cv2.resize(cv2.imread(path), (30, 20), interpolation=cv2.INTER_AREA))
    boxes = LoadAnnotations(with_bbox=True)(results)
    assert boxes['gt_bboxes'].tensor.tolist() == [[3, 5, 15, 20]] and boxes['gt_bboxes_labels'].tolist() == [1]
    with pytest.raises(UserError, match='does not scale masks; set min_side=None'):
        LoadAnnotations(with_bbox=True, with_mask=True)(load(dict(img_path=path, instances=instances)))
    for wrong in (dict(seg_map_path='a.png'), dict(proposals=np.zeros((1, 4)))):
        with pytest.raises(UserError, match=f'does not scale {next(iter(wrong))}'):
            load(dict(img_path=path, instances=instances, **wrong))
    with pytest.raises(UserError, match='no others'):
        load(dict(img_path=path, instances=[dict(bbox=[0, 0, 1, 1, 0.5])]))
    assert 'instances' not in load(dict(img_path=path))


def test_another_loader_decodes(tmp_path, picture):
    cfg = dict(type='mixdet.LoadCachedImage', cache=str(tmp_path / 'cache'))
    grey = dict(type='LoadImageFromFile', color_type='grayscale', to_float32=True)
    load = TRANSFORMS.build(dict(cfg, loader=grey))
    for _ in range(2):
        found = load(dict(img_path=picture))['img']
        assert found.dtype == np.float32 and (found == cv2.imread(picture, cv2.IMREAD_GRAYSCALE)).all()
    assert json.loads(kept(tmp_path / 'cache')[0].read_bytes()[:HEADER])['of'] == [40, 60]
