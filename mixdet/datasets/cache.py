"""Decoded images kept in files, for trainings that read the same images again and again."""

import contextlib
import hashlib
import json
import logging
import math
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional, Union

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile

from mixdet.errors import UserError, first_line
from mixdet.registry import TRANSFORMS

HEADER = 512  # bytes before the pixels
FORMAT = 1
PARTIAL = '.partial'
ABANDONED = 3600  # s after which a partial file is of a process that was killed
KEEP_FREE = 2**30  # bytes of the disk
RECOUNT = 30  # s until a process looks again how much others have written
# what is given in px of the image and not scaled with it
UNSCALED = ('mask', 'keypoints')
logger = logging.getLogger(__name__)


def default_folder() -> Path:
    """Where decoded images are kept unless the config says otherwise: ``$XDG_CACHE_HOME/mixdet/images``."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache', 'mixdet', 'images')


@TRANSFORMS.register_module()
class LoadCachedImage(LoadImageFromFile):
    """MMDetection's ``LoadImageFromFile`` for a training that decodes each image only once.

    Decoded images lie in files of ``cache``, which all workers, processes and later trainings map into memory. A file
    belongs to a path and the options of the decoding, and says which size and time of modification the image had: an
    image that has changed is decoded anew. It is written under another name and renamed, so that whoever reads it sees
    all of it or nothing, even if a writer is killed. ``mixdet.ImageCacheHook`` decodes all images before the training;
    others are kept when they are first read.

    Args:
        cache: a folder; True for ``$XDG_CACHE_HOME/mixdet/images``; False for no cache.
        min_side: images are kept at a smaller size, with their boxes, if their shorter side then still has so many px;
            None for their own size. A crop that covers the share s of the shorter side and becomes S px large is
            enlarged by at most S / (s * min_side), or by what the image's own size asks for. Only for trainings on
            boxes: masks and evaluations need the own size.
        max_gb: size (10^9 bytes) that the folder may reach; further images are decoded each time, which one line says.
        loader: config of the transform that decodes an image, in place of ``LoadImageFromFile(**kwargs)``.
        **kwargs: of ``LoadImageFromFile``. Images from elsewhere than files are not kept.
    """

    def __init__(
        self,
        cache: Union[bool, str] = True,
        min_side: Optional[int] = None,
        max_gb: float = 10.0,
        loader: Optional[dict] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if min_side is not None and min_side < 1:
            raise UserError(f'LoadCachedImage: min_side={min_side} must be at least 1 px, or None')
        if not max_gb > 0:
            raise UserError(f'LoadCachedImage: max_gb={max_gb:g} must be above 0')
        self.loader = TRANSFORMS.build(loader or dict(type='mmcv.LoadImageFromFile', **kwargs))
        folder = Path(cache).expanduser() if isinstance(cache, str) else default_folder()
        self.folder = folder if cache else None
        self.min_side = min_side
        self._options = f'{FORMAT} {self.loader} {min_side} {cv2.__version__}'
        self.max_bytes = int(max_gb * 1e9)
        self.full = False
        self._used, self._counted = 0, -math.inf

    @property
    def shrinks(self) -> bool:
        """Whether images may become smaller than their files."""
        return self.folder is not None and self.min_side is not None

    def transform(self, results: dict) -> Optional[dict]:
        """Set ``img``, ``img_shape`` and ``ori_shape``; scale the boxes of ``instances`` where the image was shrunk."""
        path = results['img_path']
        source = self._source(path)
        if source is None:
            return self.loader(results)
        found = self._read(self._entry(path), source)
        if found is None:
            loaded = self.loader(dict(results))
            if loaded is None:
                return None
            found = self._keep(path, source, loaded['img'])
        image, shape = found
        if image.shape[:2] != shape:
            results = _with_scaled_boxes(results, image.shape[1] / shape[1], image.shape[0] / shape[0])
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def fill(self, paths: Iterable[str], progress: Callable[[Sequence], Iterable] = iter) -> None:
        """Keep the images of ``paths`` that are not kept yet; those that cannot be decoded are left to the training.

        Args:
            paths: of the images.
            progress: wraps the list, to show a progress bar.
        """
        if self.folder is None:
            return
        self._remove_abandoned()
        missing = [path for path in dict.fromkeys(paths) if not self._has(path)]
        threads = min(8, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:  # OpenCV decodes without Python's lock
            for start in progress(range(0, len(missing), threads)):
                list(pool.map(self._fill, missing[start : start + threads]))
                if self.full:
                    break

    def _fill(self, path: str) -> None:
        source = self._source(path)
        with contextlib.suppress(Exception):  # a decoder can fail in any way; the training says so where it matters
            loaded = self.loader(dict(img_path=path))
            if source is not None and loaded is not None:
                self._keep(path, source, loaded['img'])

    def _has(self, path: str) -> bool:
        source = self._source(path)
        return source is None or self._read(self._entry(path), source) is not None

    def _source(self, path: str) -> Optional[tuple[int, int]]:
        """Size and time of modification of an image file; None if it is not to be kept."""
        if self.folder is None or getattr(self.loader, 'backend_args', None) or self.file_client_args:
            return None
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return None  # and MMDetection says what is wrong
        return status.st_size, status.st_mtime_ns

    def _entry(self, path: str) -> Path:
        key = f'{self._options} {os.path.abspath(path)}'
        name = hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()[:32]
        assert self.folder is not None
        return self.folder / name[:2] / name[2:]

    @staticmethod
    def _read(entry: Path, source: Sequence[int]) -> Optional[tuple[np.ndarray, tuple[int, int]]]:
        """The kept image, which may be written to, and the (height, width) of its file; None if it is not there."""
        try:
            with entry.open('rb') as file:
                head = json.loads(file.read(HEADER))
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            dtype, shape = np.dtype(head['dtype']), tuple(head['shape'])
            if head['source'] != list(source) or len(content) != HEADER + math.prod(shape) * dtype.itemsize:
                return None
            return np.frombuffer(content, dtype, offset=HEADER).reshape(shape), tuple(head['of'])
        except (OSError, ValueError, KeyError, TypeError):  # not there, or not written by this class
            return None

    def _keep(self, path: str, source: Sequence[int], image: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        """Shrink ``image`` and keep it if there is room; returns it with the (height, width) of its file."""
        shape = image.shape[:2]
        image = _shrunk(image, self.min_side)
        head = json.dumps(dict(source=source, dtype=image.dtype.str, shape=image.shape, of=shape))
        try:
            if not self.full and self._has_room(image.nbytes):
                _write(self._entry(path), head.encode().ljust(HEADER), np.ascontiguousarray(image))
        except OSError as error:
            self._stop(f'cannot be written to: {error.strerror or first_line(error)}')
        return image, (shape[0], shape[1])

    def _has_room(self, size: int) -> bool:
        assert self.folder is not None
        if self._counted < time.monotonic() - RECOUNT:
            self._used, self._counted = _size(self.folder), time.monotonic()
        self._used += size + HEADER
        if self._used > self.max_bytes:
            self._stop(f'has reached max_gb={self.max_bytes / 1e9:g}; raise that, or delete files of other data there')
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self.folder).free < size + KEEP_FREE:
            self._stop('is on a disk with less than 1 GB free; make room, or name a folder elsewhere by cache=')
        return not self.full

    def _stop(self, why: str) -> None:
        if self.full:  # said by another thread
            return
        self.full = True
        logger.warning('image cache %s %s. Images that are not in it are decoded each time.', self.folder, why)

    def _remove_abandoned(self) -> None:
        """Remove what processes that were killed had begun to write."""
        assert self.folder is not None
        for file in self.folder.glob(f'*/*{PARTIAL}'):
            with contextlib.suppress(OSError):
                if file.stat().st_mtime < time.time() - ABANDONED:
                    file.unlink()


def _size(folder: Path) -> int:
    """Bytes of all files of a cache."""
    total = 0
    for file in folder.glob('*/*'):
        with contextlib.suppress(OSError):  # renamed meanwhile
            total += file.stat().st_size
    return total


def _shrunk(image: np.ndarray, min_side: Optional[int]) -> np.ndarray:
    """``image`` with a shorter side of ``min_side`` px if it is longer."""
    height, width = image.shape[:2]
    if min_side is None or min(height, width) <= min_side or image.dtype not in (np.uint8, np.uint16, np.float32):
        return image
    scale = min_side / min(height, width)
    size = max(min_side, round(width * scale)), max(min_side, round(height * scale))
    shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return shrunk if shrunk.ndim == image.ndim else shrunk[..., None]


class _BoxOnly(dict):
    """An instance whose image was shrunk, and its box with it."""

    def __missing__(self, key: str) -> Any:
        if key in UNSCALED:
            raise UserError(f'LoadCachedImage: min_side does not scale {key}s; set min_side=None')
        raise KeyError(key)


def _with_scaled_boxes(results: dict, x: float, y: float) -> dict:
    """``results`` with the boxes of its instances times ``x`` and ``y``."""
    for key in ('seg_map_path', 'proposals'):
        if results.get(key) is not None:
            raise UserError(f'LoadCachedImage: min_side does not scale {key}; set min_side=None')
    instances = []
    for instance in results.get('instances', ()):
        kept = _BoxOnly((key, value) for key, value in instance.items() if key not in UNSCALED)
        if len(kept['bbox']) != 4:
            raise UserError('LoadCachedImage: min_side scales boxes x1, y1, x2, y2, no others; set min_side=None')
        x1, y1, x2, y2 = kept['bbox']
        kept['bbox'] = [x1 * x, y1 * y, x2 * x, y2 * y]
        instances.append(kept)
    return {**results, 'instances': instances} if 'instances' in results else results


def _write(entry: Path, head: bytes, image: np.ndarray) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(PARTIAL, dir=entry.parent)
    try:
        with os.fdopen(descriptor, 'wb') as file:
            file.write(head)
            file.write(image.data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, entry)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
