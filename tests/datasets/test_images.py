import shutil

import cv2
import numpy as np
import pytest
from helpers import shared_path
from mmcv.transforms import LoadImageFromFile
from mmengine.config import ConfigDict
from PIL import Image

from mixdet.datasets import SSDCrop
from mixdet.datasets.images import check_images, image_loader
from mixdet.datasets.issues import IssueLog

PILLOW = dict(type='LoadImageFromFile', imdecode_backend='pillow')


def picture(height=40, width=60):
    coarse = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(coarse, (width, height)))


@pytest.fixture
def folder(tmp_path):
    image = picture()
    image.save(tmp_path / 'good.jpg')
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / 'turned.jpg', exif=exif)
    (tmp_path / 'text.jpg').write_text('no picture')
    (tmp_path / 'empty.jpg').write_bytes(b'')
    image.save(tmp_path / 'good.png')
    for suffix in ('tga', 'pcx', 'webp', 'tif', 'ppm'):
        image.save(tmp_path / f'image.{suffix}')
    image.convert('L').save(tmp_path / 'grey.png')
    image.convert('RGBA').save(tmp_path / 'alpha.png')
    Image.fromarray(np.full((40, 60), 0.5, np.float32)).save(tmp_path / 'float.tif')
    Image.fromarray(np.full((40, 60), np.nan, np.float32)).save(tmp_path / 'nan.tif')
    (tmp_path / 'sub').mkdir()
    image.save(tmp_path / 'sub/deep.png')
    return tmp_path


def skip_if_opencv_reads(path):
    if cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR) is not None:
        pytest.skip('this OpenCV can read it')


def check(folder, name, pipeline=None, size=(60, 40), **options):
    image = dict(id=7, file_name=name, width=size[0], height=size[1])
    log = IssueLog('a.json')
    unusable = check_images([image], folder, log, decode=True, load=image_loader(pipeline), **options)
    return log.issues, unusable == set(), image


@pytest.mark.parametrize(('name', 'size', 'kinds', 'usable'), [
    ('good.jpg', (60, 40), [], True),
    ('good.png', (60, 40), [], True),
    ('grey.png', (60, 40), [], True),
    ('alpha.png', (60, 40), [], True),
    ('good.jpg', (40, 60), ['image file of another size'], True),
    ('turned.jpg', (40, 60), ['image rotated by EXIF'], True),
    ('turned.jpg', (60, 40), ['image rotated by EXIF', 'image file of another size'], True),
    ('gone.jpg', (60, 40), ['missing image file'], False),
    ('text.jpg', (60, 40), ['unreadable image file'], False),
    ('empty.jpg', (60, 40), ['unreadable image file'], False),
])  # fmt: skip
def test_issues_of_files(folder, name, size, kinds, usable):
    issues, is_usable, _ = check(folder, name, size=size)
    assert [issue.kind for issue in issues] == kinds and is_usable == usable
    assert all(issue.where == 'image 7' and name in issue.detail for issue in issues)


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('color_type', ['color', 'unchanged', 'color_ignore_orientation'])
def test_what_the_pipeline_can_read_is_readable(folder, backend, color_type):
    """Whole and truncated files of many formats: the check agrees with the transform of the training."""
    step = dict(type='LoadImageFromFile', imdecode_backend=backend, color_type=color_type)
    transform = LoadImageFromFile(imdecode_backend=backend, color_type=color_type)
    for path in [path for path in folder.iterdir() if path.is_file()]:
        content = path.read_bytes()
        path.with_name(f'cut_{path.name}').write_bytes(content[: len(content) * 6 // 10])
    for path in [path for path in sorted(folder.iterdir()) if path.is_file()]:
        try:
            readable = transform(dict(img_path=str(path)))['img'] is not None
        except Exception:
            readable = False
        issues, _, _ = check(folder, path.name, [step])
        assert ('unreadable image file' not in [issue.kind for issue in issues]) == readable, path.name
        truncated = path.name.startswith('cut_') and path.suffix in ('.png', '.ppm', '.tif')
        assert any('truncated' in str(issue) for issue in issues) or not truncated, path.name


@pytest.mark.parametrize('name', ['image.tga', 'image.pcx', 'float.tif'])
def test_what_only_pillow_reads_has_a_cure(folder, name):
    skip_if_opencv_reads(folder / name)
    issues, usable, _ = check(folder, name)
    assert not usable and str(issues[0]).endswith(
        "though Pillow can: convert it to PNG, or set imdecode_backend='pillow' in LoadImageFromFile; training stops "
        'when it is read'
    )
    assert check(folder, name, [PILLOW])[:2] == ([], True)


def test_the_loader_is_that_of_the_pipeline(folder):
    assert isinstance(image_loader(), LoadImageFromFile) and image_loader().imdecode_backend == 'cv2'
    steps = [dict(type='LoadAnnotations', with_bbox=True), ConfigDict(PILLOW), dict(type='Resize', scale=(4, 4))]
    assert image_loader(steps).imdecode_backend == 'pillow'
    loader = LoadImageFromFile(color_type='grayscale')
    assert image_loader([loader]) is loader
    assert image_loader([dict(type='LoadAnnotations', with_bbox=True)]).imdecode_backend == 'cv2'
    cached = image_loader([dict(type='mixdet.LoadCachedImage', cache=str(folder / 'cache'), color_type='grayscale')])
    assert type(cached) is LoadImageFromFile and cached.color_type == 'grayscale'  # the files are checked, no cache
    crop = dict(type='mixdet.SSDCrop', scale=8, loader=dict(type='LoadImageFromFile', ignore_empty=True))
    for step in (crop, SSDCrop(8, loader=crop['loader'])):
        inner = image_loader([dict(type='LoadAnnotations', with_bbox=True), step])
        assert type(inner) is LoadImageFromFile and inner.ignore_empty


def test_rotation_is_that_of_the_pipeline(folder):
    for step in (dict(PILLOW, color_type='color_ignore_orientation'), dict(PILLOW, color_type='unchanged')):
        assert check(folder, 'turned.jpg', [step])[:2] == ([], True)


@pytest.mark.parametrize(
    ('name', 'found'), [('grey.png', 1), ('alpha.png', 4), ('float.tif', 1), ('good.png', None), ('good.jpg', None)]
)
def test_channels_must_fit_the_data_preprocessor(folder, name, found):
    unchanged = [dict(type='LoadImageFromFile', color_type='unchanged')]
    issues, usable, _ = check(folder, name, unchanged, channels=3)
    assert [issue.detail for issue in issues] == ([f'{folder / name}: {found} instead of 3'] if found else [])
    assert usable == (found is None) and check(folder, name, unchanged)[0] == []


def test_pixels_must_be_finite(folder):
    issues, usable, _ = check(folder, 'nan.tif', [dict(type='LoadImageFromFile', color_type='unchanged')])
    assert [issue.kind for issue in issues] == ['image file not finite'] and not usable


def test_backslashes_are_named_and_mended(folder):
    issues, usable, image = check(folder, 'sub\\deep.png')
    assert usable and image['file_name'] == 'sub/deep.png'
    assert [issue.kind for issue in issues] == ['backslash in file name']
    assert f'sub\\deep.png, but {folder}/sub/deep.png exists' in str(issues[0])
    (issue,), usable, _ = check(folder, 'other\\gone.png')
    assert not usable and str(issue).startswith('image 7: missing image file') and 'backslashes separate' in str(issue)
    shutil.copy(folder / 'good.png', folder / 'a\\b.png')  # a name with a backslash in it
    assert check(folder, 'a\\b.png')[:2] == ([], True)


@pytest.mark.parametrize(
    ('name', 'near'),
    [('images/good.jpg', 'good.jpg'), ('good.JPG', 'good.jpg'), ('turned.png', 'turned.jpg'),
     ('C:\\images\\good.png', 'good.png')],
)  # fmt: skip
def test_a_missing_file_that_is_near_is_named(folder, name, near):
    (issue,), usable, _ = check(folder, name)
    assert not usable and issue.kind == 'missing image file' and f', but {folder / near} exists' in issue.detail


@pytest.mark.parametrize(('name', 'reason'), [('truncated.jpg', 'truncated'), ('float32.tif', 'Pillow can')])
def test_files_of_others(name, reason):
    path = shared_path('cases', name)
    if name == 'float32.tif':
        skip_if_opencv_reads(path)
    issues, usable, _ = check(path.parent, name, size=(640, 480))
    assert not usable and len(issues) == 1 and reason in str(issues[0])


def test_opencv_stays_quiet(folder, capfd):
    logging = pytest.importorskip('cv2.utils.logging')
    level = logging.getLogLevel()
    check(folder, 'float.tif')
    assert capfd.readouterr().err == '' and logging.getLogLevel() == level


def test_without_decoding_only_missing_files_are_seen(folder):
    log = IssueLog('a.json')
    images = [dict(id=i, file_name=name, width=1, height=1) for i, name in enumerate(['text.jpg', 'gone.jpg'])]
    assert check_images(images, folder, log, decode=False) == {1}
    assert [issue.kind for issue in log.issues] == ['missing image file']
