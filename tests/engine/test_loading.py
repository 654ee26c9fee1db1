import errno
import signal
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from mixdet.engine import loading
from mixdet.engine.loading import explained_batches, unreadable_image
from mixdet.errors import UserError


def transform(results, read):
    """Stands for MMDetection's transforms, which have a dict of this name."""
    return read(results['img_path'])


def fail(path):
    raise AssertionError


def error_of(results, read=fail):
    try:
        transform(results, read)
    except Exception as error:
        return error


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    return path


@pytest.mark.parametrize(
    ('content', 'reason'),
    [(b'', 'is empty'), (b'\x89PNG', 'cannot be decoded'), (None, 'cannot be read: No such file')],
)
def test_the_image_is_named(image, content, reason):
    image.unlink()
    if content is not None:
        image.write_bytes(content)
    assert unreadable_image(error_of(dict(img_path=str(image)))).startswith(f'image {image} {reason}')


def test_other_errors_keep_their_traceback(image):
    for results in (dict(img_path=str(image)), dict(img_path='s3://a.png'), dict(img_path=None)):
        assert unreadable_image(error_of(results)) is None


def test_of_several_images_it_is_the_one_that_was_being_read(image, tmp_path):
    empty = tmp_path / 'empty.png'
    empty.touch()
    error = error_of(dict(img_path=str(image)), lambda path: transform(dict(img_path=str(empty)), fail))
    assert unreadable_image(error).startswith(f'image {empty} is empty')


class Data:
    """Two samples, the second of which fails."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index:
            raise self.error
        return index


@pytest.mark.parametrize('workers', [0, 1])
def test_what_a_worker_says_is_one_line(workers):
    batches = explained_batches(iter(DataLoader(Data(UserError('image a.png is empty')), num_workers=workers)))
    assert int(next(batches)) == 0
    with pytest.raises(UserError, match='^image a.png is empty$'):
        next(batches)
    batches = explained_batches(iter(DataLoader(Data(ZeroDivisionError('x')), num_workers=workers)))
    next(batches)
    with pytest.raises(ZeroDivisionError):
        next(batches)


def batches_of(error, *statuses):
    class Batches:
        _workers = [SimpleNamespace(exitcode=status, join=lambda seconds: None) for status in statuses]

        def __next__(self):
            raise error

    return explained_batches(Batches())


LOST = RuntimeError('DataLoader worker (pid(s) 12) exited unexpectedly')
FULL = RuntimeError('Caught RuntimeError in DataLoader worker process 0: unable to allocate shared memory(shm): ...')


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='signals of POSIX')
@pytest.mark.parametrize(
    ('error', 'statuses', 'reason'),
    [
        (LOST, [None, -9], 'was killed .SIGKILL., as the system does when memory runs out; use fewer'),
        (ConnectionResetError(104, 'reset'), [-9], 'was killed .SIGKILL.'),
        (LOST, [0, -11, None], r'ended \(SIGSEGV\); num_workers=0 shows its error'),
        (LOST, [3], r'ended \(status 3\)'),
        (LOST, [None], r'ended \(unknown\)'),
        (LOST, [errno.ENOSPC], 'too little shared memory: /dev/shm has 0.0625 MiB, 0.03125 of them free; enlarge'),
        (LOST, [-7], 'too little shared memory'),
        (FULL, [None], 'too little shared memory'),
    ],
)
def test_a_lost_worker_is_explained(monkeypatch, error, statuses, reason):
    space = SimpleNamespace(f_frsize=1024, f_blocks=64, f_bavail=32)
    monkeypatch.setattr(loading.os, 'statvfs', lambda path: space)
    with pytest.raises(UserError, match=reason):
        next(batches_of(error, *statuses))


def test_without_shared_memory_to_look_at(monkeypatch):
    monkeypatch.delattr(loading.os, 'statvfs')
    with pytest.raises(UserError, match='too little shared memory: enlarge /dev/shm'):
        next(batches_of(FULL))


@pytest.mark.parametrize('text', ['shapes differ', 'Caught RuntimeError in a worker.\nshapes differ'])
def test_errors_of_another_kind_stay(text):
    with pytest.raises(RuntimeError, match='shapes differ'):
        next(batches_of(RuntimeError(text), None))
