"""Reading and writing videos with OpenCV, whatever their names."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Optional

import cv2
import numpy as np

from mixdet.errors import UserError

# VP9 plays in browsers; OpenCV's own packages have no H.264. MPEG-4 Part 2, which every OpenCV writes, does not.
CODECS = {'vp09': True, 'mp4v': False}
SUFFIX = '.mp4'


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video, (H, W, 3) uint8 BGR. Raises UserError if it cannot be opened or has no frames."""
    count = 0
    with _capture(path) as capture:
        while True:
            whole, frame = capture.read()
            if not whole:
                break
            count += 1
            yield frame
    if not count:
        raise UserError(f'{path} cannot be decoded as a video')


def frame_rate(path: Path) -> float:
    """Frames per second of a video; 25 if the file does not say."""
    with _capture(path) as capture:
        rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if 0 < rate < 1000 else 25.0


class VideoFile:
    """A video that is written, in a context: it is whole when the context is left, also by an error, or removed.

    Args:
        path: an existing file, which is replaced, ``.mp4``.
        rate: frames per second.
        size: width and height, px.

    Attributes:
        in_browsers (bool): whether browsers play its codec.

    Raises:
        UserError: if it cannot be written.
    """

    def __init__(self, path: Path, rate: float, size: tuple[int, int]) -> None:
        self.path = path
        self._frames = 0
        self._alias = contextlib.ExitStack()
        name = self._alias.enter_context(_plain_name(path))
        for codec, self.in_browsers in CODECS.items():
            self._writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*codec), rate, size)
            if self._writer.isOpened():
                return
        self._alias.close()
        path.unlink(missing_ok=True)
        raise UserError(f'{path}: this OpenCV cannot write a video of {size[0]}x{size[1]} px')

    def write(self, frame: np.ndarray) -> None:
        """Append a frame (H, W, 3), uint8 BGR."""
        self._writer.write(np.ascontiguousarray(frame))
        self._frames += 1

    def __enter__(self) -> 'VideoFile':
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._writer.release()
        self._alias.close()
        if not self._is_whole():  # OpenCV does not say so
            with contextlib.suppress(OSError):
                self.path.unlink()
            if kind is None:
                raise UserError(f'{self.path} could not be written in full; is the disk full?')

    def _is_whole(self) -> bool:
        with _capture(self.path) as capture:
            return capture.isOpened() and capture.get(cv2.CAP_PROP_FRAME_COUNT) >= self._frames


@contextlib.contextmanager
def _capture(path: Path) -> Iterator[cv2.VideoCapture]:
    with _plain_name(path) as name:
        capture = cv2.VideoCapture(name)
        try:
            yield capture
        finally:
            capture.release()


@contextlib.contextmanager
def _plain_name(path: Path) -> Iterator[str]:
    """A name of the file ``path`` that OpenCV takes: a link to it if the path is not UTF-8, which ends the process."""
    whole = os.path.abspath(path)
    with contextlib.ExitStack() as stack:
        try:
            whole.encode()
        except UnicodeEncodeError:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            link = Path(folder, f'video{SUFFIX}' if path.suffix == SUFFIX else 'video')
            link.symlink_to(whole)
            whole = str(link)
        yield whole
