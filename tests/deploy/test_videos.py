import os

import cv2
import numpy as np
import pytest
from odd_images import scene

from mixdet.deploy import videos
from mixdet.deploy.videos import VideoFile, frame_rate, read_frames
from mixdet.errors import UserError

# not UTF-8; as a row of images is named; letters of another alphabet
NAMES = [b'a.mp4', b'caf\xe9.mp4', b'take%02d.mp4', 'кино 文.mp4'.encode(), b'\xff\xfe.mp4']


def write(path, frames=3, size=(48, 32)):
    path.touch()
    with VideoFile(path, 12, size) as video:
        for _ in range(frames):
            video.write(cv2.resize(scene()[..., ::-1], size))
    return video


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('folder', [b'plain', b'd\xe9j\xe0 vu'])
def test_names_of_any_kind(tmp_path, folder, name):
    path = tmp_path / os.fsdecode(folder) / os.fsdecode(name)
    path.parent.mkdir()
    video = write(path)
    frames = list(read_frames(path))
    assert len(frames) == 3 and np.abs(frames[0].astype(int) - scene()[..., ::-1]).mean() < 12
    assert frame_rate(path) == 12 and os.listdir(os.fsencode(path.parent)) == [name]
    assert video.in_browsers == (fourcc(path) in ('vp09', 'VP90', 'avc1', 'h264'))


def fourcc(path):
    with videos._capture(path) as capture:
        return int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, 'little').decode()


def test_without_vp9_browsers_do_not_play_it(tmp_path, monkeypatch):
    monkeypatch.setattr(videos, 'CODECS', {'mp4v': False})
    assert not write(tmp_path / 'a.mp4').in_browsers and len(list(read_frames(tmp_path / 'a.mp4'))) == 3


def test_what_is_no_video(tmp_path):
    (tmp_path / 'b.mp4').write_bytes(b'nothing')
    assert frame_rate(tmp_path / 'b.mp4') == 25
    with pytest.raises(UserError, match='b.mp4 cannot be decoded as a video'):
        list(read_frames(tmp_path / 'b.mp4'))


def test_a_video_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(videos, 'CODECS', {'none': False})
    (tmp_path / 'a.mp4').touch()
    with pytest.raises(UserError, match='a.mp4: this OpenCV cannot write a video of 48x32 px'):
        write(tmp_path / 'a.mp4')
    assert not (tmp_path / 'a.mp4').exists()


def test_a_video_that_was_cut_off_is_named(tmp_path):
    """As by a full disk, of which OpenCV says nothing."""
    (tmp_path / 'a.mp4').touch()
    video = VideoFile(tmp_path / 'a.mp4', 12, (48, 32))
    with pytest.raises(UserError, match='a.mp4 could not be written in full'), video:
        video.write(np.ascontiguousarray(scene()))
        video._frames = 5
    assert not (tmp_path / 'a.mp4').exists()  # nothing that cannot be played
    (tmp_path / 'a.mp4').touch()
    with pytest.raises(KeyError), VideoFile(tmp_path / 'a.mp4', 12, (48, 32)) as video:
        video.write(np.ascontiguousarray(scene()))
        raise KeyError
    assert len(list(read_frames(tmp_path / 'a.mp4'))) == 1  # what there was is whole
