from pathlib import Path

import cv2
import numpy as np
import pytest
from odd_images import scene, write_odd_images
from PIL import Image

from mixdet.deploy.images import IMAGES, find_inputs, is_video, read_image, read_reduced
from mixdet.errors import UserError


def test_fifty_odd_images(tmp_path):
    readable = write_odd_images(tmp_path)
    assert len(readable) == 50
    for name, expected in readable.items():
        try:
            image = read_image(tmp_path / name)
        except UserError as error:
            assert not expected and str(error).startswith(f'{tmp_path / name}'), name
            reason = 'No such file' if name == 'dangling.jpg' else 'cannot be decoded as an image'
            assert reason in str(error) and ('it is empty' in str(error)) == (name == 'empty.jpg')
        else:
            assert expected, name
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def test_colours_depth_and_orientation(tmp_path):
    write_odd_images(tmp_path)
    expected = scene()[..., ::-1]
    for name in ('plain.png', 'alpha.png', 'palette.png', 'deep.png', 'deep.tiff', 'really_png.jpg', 'plain.bmp'):
        assert np.array_equal(read_image(tmp_path / name), expected), name
    grey = read_image(tmp_path / 'grey.png')
    assert (grey[..., 0] == grey[..., 1]).all() and (grey[..., 1] == grey[..., 2]).all()
    # red, (left in the upright scene), lies where EXIF says: 3 is upside down, 6 a quarter turn to the right
    corners = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, 0), 7: (-1, -1), 8: (-1, -1)}
    for orientation, corner in corners.items():
        image = read_image(tmp_path / f'exif{orientation}.jpg')
        assert image.shape[:2] == ((32, 48) if orientation <= 4 else (48, 32))
        assert image[corner][2] > 200 and image[corner][0] < 60, orientation


def test_inputs(tmp_path):
    for name in ('b.jpg', 'a.png', 'deep/c.JPG', 'deep/notes.txt', 'film.mp4'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = lambda *patterns: [path.name for path in find_inputs(str(tmp_path / p) for p in patterns)]  # noqa: E731
    assert names('.') == ['a.png', 'b.jpg', 'c.JPG', 'film.mp4']
    assert names('*.jpg', 'b.jpg') == ['b.jpg']
    assert names('**/*.JPG') == ['c.JPG']
    assert names('deep/notes.txt') == names('deep/*.txt') == ['notes.txt']
    assert names('deep', 'b.jpg', '*.png') == ['c.JPG', 'b.jpg', 'a.png']
    left = [path.name for path in find_inputs([str(tmp_path), str(tmp_path / 'deep/c.JPG')], tmp_path / 'deep')]
    assert left == ['a.png', 'b.jpg', 'film.mp4', 'c.JPG']  # what is named is taken
    for pattern in ('gone.jpg', '*.webp', 'dee*'):  # a glob of folders has no files
        with pytest.raises(UserError, match='no image or video found'):
            names(pattern)


def test_every_kind_of_image_is_predicted_or_named(tmp_path):
    picture = Image.fromarray(scene())
    written = []
    for suffix in IMAGES:
        try:
            picture.save(tmp_path / f'a{suffix}')
        except (ValueError, OSError, KeyError):  # Pillow cannot write it
            (tmp_path / f'a{suffix}').write_bytes(b'unknown')
        else:
            written.append(suffix)
    found = find_inputs([str(tmp_path)])
    assert {path.suffix for path in found} == set(IMAGES) and {'.tga', '.pcx', '.png', '.jpg'} <= set(written)
    for path in found:
        decoded = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        if decoded is not None:
            assert np.array_equal(read_image(path), decoded)
            continue
        reason = 'OpenCV does not read this .*; convert it to PNG' if path.suffix in written else 'it is damaged'
        with pytest.raises(UserError, match=f'a{path.suffix} cannot be decoded as an image: {reason}'):
            read_image(path)


def test_kinds_of_files():
    assert is_video(Path('a.AVI')) and not is_video(Path('a.jpg'))


def test_huge_images_are_reduced(tmp_path):
    write_odd_images(tmp_path)  # of 48x32 px
    half = scene(24, 16)[..., ::-1].astype(int)
    for name in ('plain.png', 'plain.bmp', 'plain.jpg', 'deep.png', 'grey.jpg'):
        image, size = read_reduced(tmp_path / name, 24 * 16)
        assert size == (48, 32) and image.shape == (16, 24, 3) and image.dtype == np.uint8, name
        assert name == 'grey.jpg' or abs(image[:, [0, -1]].astype(int) - half[:, [0, -1]]).max() < 8, name
        image, size = read_reduced(tmp_path / name, 24 * 16 - 1)
        assert size == (48, 32) and image.shape == (8, 12, 3), name
        whole, size = read_reduced(tmp_path / name, 48 * 32)
        assert size == (48, 32) and np.array_equal(whole, read_image(tmp_path / name)), name
    for orientation in range(1, 9):
        image, size = read_reduced(tmp_path / f'exif{orientation}.jpg', 24 * 16)
        assert size == ((48, 32) if orientation <= 4 else (32, 48)) and image.shape[1::-1] == (
            size[0] // 2,
            size[1] // 2,
        )
    assert read_reduced(tmp_path / 'row.png', 10)[0].shape == (1, 700 // 8, 3)
    for name in ('empty.jpg', 'text.jpg', 'head_only.jpg', 'gone.jpg'):
        with pytest.raises(UserError, match=name):
            read_reduced(tmp_path / name)


def test_a_stated_size_of_any_number_of_pixels(tmp_path, monkeypatch):
    """Pillow refuses to open an image of more than twice its limit, which is the process's and stays as it was."""
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    cv2.imwrite(str(tmp_path / 'a.jpg'), scene(100, 60))
    image, size = read_reduced(tmp_path / 'a.jpg', 50 * 30)
    assert size == (100, 60) and image.shape == (30, 50, 3) and Image.MAX_IMAGE_PIXELS == 100


def test_links_that_lead_to_themselves(tmp_path):
    (tmp_path / 'loop.jpg').symlink_to('loop.jpg')
    (tmp_path / 'a.jpg').touch()
    assert tmp_path / 'a.jpg' in find_inputs([str(tmp_path)], tmp_path / 'out')
