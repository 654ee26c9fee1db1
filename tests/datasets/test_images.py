import numpy as np
import pytest
from PIL import Image

from mixdet.datasets.images import check_images
from mixdet.datasets.issues import IssueLog


@pytest.fixture
def folder(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    picture.save(tmp_path / 'good.jpg')
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / 'turned.jpg', exif=exif)
    whole = (tmp_path / 'good.jpg').read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'text.jpg').write_text('no picture')
    (tmp_path / 'empty.jpg').write_bytes(b'')
    picture.save(tmp_path / 'good.png')
    (tmp_path / 'cut.png').write_bytes((tmp_path / 'good.png').read_bytes()[:3000])
    return tmp_path


@pytest.mark.parametrize(('name', 'size', 'kinds', 'usable'), [
    ('good.jpg', (60, 40), [], True),
    ('good.png', (60, 40), [], True),
    ('good.jpg', (40, 60), ['image file of another size'], True),
    ('turned.jpg', (40, 60), ['image rotated by EXIF'], True),
    ('turned.jpg', (60, 40), ['image rotated by EXIF', 'image file of another size'], True),
    ('gone.jpg', (60, 40), ['missing image file'], False),
    ('cut.jpg', (60, 40), ['truncated image file'], False),
    ('cut.png', (60, 40), ['truncated image file'], False),
    ('text.jpg', (60, 40), ['unreadable image file'], False),
    ('empty.jpg', (60, 40), ['unreadable image file'], False),
])  # fmt: skip
def test_issues_of_files(folder, name, size, kinds, usable):
    image = dict(id=7, file_name=name, width=size[0], height=size[1])
    log = IssueLog('a.json')
    assert check_images([image], folder, log, decode=True) == (set() if usable else {7})
    assert [issue.kind for issue in log.issues] == kinds
    assert all(issue.where == 'image 7' and name in issue.detail for issue in log.issues)


def test_without_decoding_only_missing_files_are_seen(folder):
    log = IssueLog('a.json')
    images = [dict(id=i, file_name=name, width=1, height=1) for i, name in enumerate(['text.jpg', 'gone.jpg'])]
    assert check_images(images, folder, log, decode=False) == {1}
    assert [issue.kind for issue in log.issues] == ['missing image file']
