"""Predicting whole folders and videos into files."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple, Optional, TypeVar

import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from rich.progress import Progress, TaskID

from mixdet.deploy.images import is_video, read_reduced
from mixdet.deploy.inference import Detection, Detector
from mixdet.deploy.result_files import CsvFile, JsonFile
from mixdet.deploy.stopping import StopSignals
from mixdet.deploy.videos import SUFFIX, VideoFile, frame_rate, read_frames
from mixdet.engine.drawing import draw_instances
from mixdet.engine.outputs import OutputFolder, common_folder, real_path, relative_path
from mixdet.errors import UserError

T = TypeVar('T')
JSON, CSV, IMAGES, PICTURES = 'predictions.json', 'predictions.csv', 'images.json', 'pictures'
COLUMNS = ('file', 'frame', 'class', 'score', 'x1', 'y1', 'x2', 'y2')
OUT_OF_MEMORY = ("can't allocate memory", 'not enough memory')  # in what PyTorch says on CPUs


class _Still(NamedTuple):
    """An image (H, W, 3), uint8 BGR, perhaps reduced, and the size (W, H) of the file's in px."""

    path: Path
    image: np.ndarray
    size: tuple[int, int]

    @property
    def is_reduced(self) -> bool:
        """Whether the image has less px than the file."""
        return self.image.shape[1::-1] != self.size


class Predictor:
    """Runs a ``Detector`` over files and writes into the folder ``out``, as the results come:

    - ``predictions.json``: the detections in COCO's results format, with the names of file and class added;
    - ``images.json``: every image and frame, also those without a detection, and the categories, as in COCO's files;
    - ``predictions.csv``: a line per detection, and one for an image without;
    - ``pictures/``: the images and videos with boxes drawn in.

    All are whole at any moment. Nothing is written elsewhere, or over a file that another run or the user put there.
    Images of more than ``images.MAX_PIXELS`` are reduced, and their boxes scaled back.

    Args:
        detector: the detector.
        out: the folder.
        batch_size: images per batch.
        overwrite: replace what an earlier run wrote into ``out``.

    Attributes:
        skipped (list[str]): one line for each file that could not be read.
        notes (list[str]): what a user should know of the results.
        images (int): number of images and frames that were predicted.

    Raises:
        UserError: if ``out`` contains predictions already and ``overwrite`` is not set, or a link in the place of
            ``pictures`` that leads out of it.
    """

    def __init__(self, detector: Detector, out: Path, batch_size: int = 1, overwrite: bool = False) -> None:
        for name in (JSON, CSV, IMAGES):
            if (out / name).exists() and not overwrite:
                raise UserError(
                    f'{out / name} exists already; give another --out or remove it, or replace the predictions in '
                    f'{out} with --overwrite'
                )
        if not real_path(out / PICTURES).is_relative_to(real_path(out)):
            raise UserError(f'{out / PICTURES} is a link that leads out of {out}; remove it or give another --out')
        self.detector = detector
        self.out = out
        self.batch_size = batch_size
        self.skipped: list[str] = []
        self.notes: list[str] = []
        self.images = 0
        self._folder = OutputFolder(out / PICTURES)

    def run(self, paths: Sequence[Path]) -> None:
        """Predict every file, with a progress bar, and write the results.

        Ctrl-C and SIGTERM stop it after the images that it is at, see ``StopSignals``.

        Raises UserError if they cannot be written; those before are whole.
        """
        self._prepare(paths)
        self._root = common_folder(paths)
        with ExitStack() as stack, Progress() as progress, StopSignals() as self._signals:
            for file in (self._detections, self._images, self._table):
                stack.callback(file.close)
            task = progress.add_task('Predicting', total=len(paths))
            stills = (path for path in paths if not is_video(path))
            for batch in _batches(self._read(stills, progress, task), self.batch_size):
                self._predict_stills(batch)
                progress.advance(task, len(batch))
                self._signals.check()
            for path in filter(is_video, paths):
                self._predict_video(path)
                progress.advance(task)

    def _prepare(self, paths: Sequence[Path]) -> None:
        """Remove what an earlier run wrote, but none of ``paths``, and begin the files."""
        written = [*earlier_pictures(self.out), *(self.out / name for name in (JSON, CSV, IMAGES))]
        inputs = {real_path(path) for path in paths}
        try:
            for path in written:
                if real_path(path) not in inputs:
                    path.unlink(missing_ok=True)
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f'--out {self.out}: {error.strerror or error}') from error
        names = self.detector.model.dataset_meta['classes']
        categories = json.dumps([dict(id=i, name=name) for i, name in enumerate(names, 1)])
        self._images = JsonFile(self.out / IMAGES, f'{{"categories": {categories},\n"images": [', ']}')
        self._detections = JsonFile(self.out / JSON)
        self._table = CsvFile(self.out / CSV, COLUMNS)

    def _read(self, paths: Iterable[Path], progress: Progress, task: TaskID) -> Iterator[_Still]:
        for path in paths:
            try:
                still = _Still(path, *read_reduced(path))
            except (UserError, MemoryError) as error:
                self.skipped.append(str(error) if isinstance(error, UserError) else f'{path}: not enough memory')
                progress.advance(task)
                continue
            if still.is_reduced:
                self.notes.append(
                    f'{path}: {still.size[0]}x{still.size[1]} px, reduced to {still.image.shape[1]}x'
                    f'{still.image.shape[0]} for the network and the picture; the boxes are in px of the file'
                )
            yield still

    def _predict_stills(self, batch: Sequence[_Still]) -> None:
        try:
            samples = self.detector.predict_samples([still.image for still in batch])
            drawn = [self._draw(still.image, sample) for still, sample in zip(batch, samples)]
        except (MemoryError, RuntimeError, cv2.error) as error:
            if not _is_out_of_memory(error):
                raise
            if len(batch) > 1:
                for still in batch:
                    self._predict_stills([still])
                return
            path, image, _ = batch[0]
            self.skipped.append(f'{path}: not enough memory for {image.shape[1]}x{image.shape[0]} px')
            return
        for still, sample, picture in zip(batch, samples, drawn):
            file = self._folder.write_image(relative_path(still.path, self._root), picture)
            self._record(still, sample, file)

    def _predict_video(self, path: Path) -> None:
        with ExitStack() as stack:
            video = None
            try:
                for batch in _batches(enumerate(read_frames(path)), self.batch_size):
                    samples = self.detector.predict_samples([frame for _, frame in batch])
                    if video is None:
                        video = stack.enter_context(self._video(path, batch[0][1]))
                    for (number, frame), sample in zip(batch, samples):
                        video.write(self._draw(frame, sample))
                        self._record(_Still(path, frame, frame.shape[1::-1]), sample, video.path, number)
                    self._signals.check()
            except UserError as error:
                if video is not None:
                    raise
                self.skipped.append(str(error))
            except (MemoryError, RuntimeError, cv2.error) as error:
                if not _is_out_of_memory(error):
                    raise
                self.skipped.append(f'{path}: not enough memory for its frames; those before are kept')

    def _video(self, path: Path, frame: np.ndarray) -> VideoFile:
        file = self._folder.create(relative_path(path, self._root), (SUFFIX,))
        video = VideoFile(file, frame_rate(path), (frame.shape[1], frame.shape[0]))
        if not video.in_browsers and not self.notes:
            self.notes.append('this OpenCV has no VP9: the videos are in MPEG-4 Part 2, which browsers do not play')
        return video

    def _record(self, still: _Still, sample: DetDataSample, picture: Path, frame: Optional[int] = None) -> None:
        """Write an image's results."""
        width, height = still.size
        found = [_scaled(one, still) for one in self.detector.detections(sample)]
        number = {} if frame is None else dict(frame=frame)
        self._images.extend(
            [
                dict(
                    id=self.images,
                    file_name=str(still.path),
                    **number,
                    width=width,
                    height=height,
                    detections=len(found),
                    picture=picture.relative_to(self.out).as_posix(),
                )
            ]
        )
        self._detections.extend({**_coco_record(self.images, still.path, one), **number} for one in found)
        place = [str(still.path), '' if frame is None else frame]
        cells = [[one.name, f'{one.score:.4f}', *(f'{value:.2f}' for value in one.box)] for one in found]
        self._table.extend([*place, *row] for row in cells or [[''] * 6])
        self.images += 1

    def _draw(self, image: np.ndarray, sample: DetDataSample) -> np.ndarray:
        """A copy of the image (H, W, 3), BGR, with the boxes drawn in."""
        classes = self.detector.model.dataset_meta['classes']
        return draw_instances(image, sample.pred_instances, classes, self.detector.score_thr, bgr=True)


def earlier_pictures(out: Path) -> list[Path]:
    """The pictures that the run which wrote ``out/images.json`` made, as far as they lie in ``out/pictures``."""
    folder = real_path(out / PICTURES)
    pictures: dict[Path, None] = {}
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # none that can be told
        for image in json.loads((out / IMAGES).read_bytes())['images']:
            path = out / image['picture']
            if real_path(path.parent).is_relative_to(folder) and path.is_file() and not path.is_symlink():
                pictures[path] = None
    return list(pictures)


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, cv2.error):
        return error.code == cv2.Error.StsNoMem
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or any(
        text in str(error) for text in OUT_OF_MEMORY
    )


def _scaled(found: Detection, still: _Still) -> Detection:
    """``found`` in px of the file."""
    if not still.is_reduced:
        return found
    height, width = still.image.shape[:2]
    x, y = still.size[0] / width, still.size[1] / height
    x1, y1, x2, y2 = found.box
    return found._replace(box=(x1 * x, y1 * y, x2 * x, y2 * y))


def _coco_record(image_id: int, path: Path, found: Detection) -> dict:
    x1, y1, x2, y2 = found.box
    return dict(
        image_id=image_id,
        category_id=found.label + 1,
        bbox=[x1, y1, x2 - x1, y2 - y1],
        score=found.score,
        category=found.name,
        file_name=str(path),
    )


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
