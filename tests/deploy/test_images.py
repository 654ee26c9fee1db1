from pathlib import Path

import cv2
import numpy as np
import pytest
from odd_images import scene, write_odd_images
from PIL import Image

from mixdet.deploy.images import IMAGES, find_inputs, is_video, read_image
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
