"""Predicting whole folders and videos into files."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Optional, TypeVar

import numpy as np
from mmdet.structures import DetDataSample
from rich.progress import Progress, TaskID

from mixdet.deploy.images import is_video, read_image
from mixdet.deploy.inference import Detection, Detector
from mixdet.deploy.result_files import CsvFile, JsonFile
from mixdet.deploy.videos import SUFFIX, VideoFile, frame_rate, read_frames
from mixdet.engine.drawing import draw_instances
from mixdet.engine.outputs import OutputFolder, common_folder, relative_path
from mixdet.errors import UserError

T = TypeVar('T')
JSON, CSV, IMAGES, PICTURES = 'predictions.json', 'predictions.csv', 'images.json', 'pictures'
COLUMNS = ('file', 'frame', 'class', 'score', 'x1', 'y1', 'x2', 'y2')


class Predictor:
    """Runs a ``Detector`` over files and writes into the folder ``out``, as the results come:

    - ``predictions.json``: the detections in COCO's results format, with the names of file and class added;
    - ``images.json``: every image and frame, also those without a detection, and the categories, as in COCO's files;
    - ``predictions.csv``: a line per detection, and one for an image without;
    - ``pictures/``: the images and videos with boxes drawn in.

    All are whole at any moment. Nothing is written elsewhere, or over a file that another run or the user put there.

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
        UserError: if ``out`` contains predictions already and ``overwrite`` is not set.
    """

    def __init__(self, detector: Detector, out: Path, batch_size: int = 1, overwrite: bool = False) -> None:
        for name in (JSON, CSV, IMAGES):
            if (out / name).exists() and not overwrite:
                raise UserError(
                    f'{out / name} exists already; give another --out or remove it, or replace the predictions in '
                    f'{out} with --overwrite'
                )
        self.detector = detector
        self.out = out
        self.batch_size = batch_size
        self.skipped: list[str] = []
        self.notes: list[str] = []
        self.images = 0
        self._folder = OutputFolder(out / PICTURES)

    def run(self, paths: Sequence[Path]) -> None:
        """Predict every file, with a progress bar, and write the results.

        Raises UserError if they cannot be written; those before are whole.
        """
        self._prepare(paths)
        self._root = common_folder(paths)
        with ExitStack() as stack, Progress() as progress:
            for file in (self._detections, self._images, self._table):
                stack.callback(file.close)
            task = progress.add_task('Predicting', total=len(paths))
            stills = (path for path in paths if not is_video(path))
            for batch in _batches(self._read(stills, progress, task), self.batch_size):
                self._predict_stills(batch)
                progress.advance(task, len(batch))
            for path in filter(is_video, paths):
                self._predict_video(path)
                progress.advance(task)

    def _prepare(self, paths: Sequence[Path]) -> None:
        """Remove what an earlier run wrote, but none of ``paths``, and begin the files."""
        written = [*earlier_pictures(self.out), *(self.out / name for name in (JSON, CSV, IMAGES))]
        inputs = {path.resolve() for path in paths}
        try:
            for path in written:
                if path.resolve() not in inputs:
                    path.unlink(missing_ok=True)
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f'--out {self.out}: {error.strerror or error}') from error
        names = self.detector.model.dataset_meta['classes']
        categories = json.dumps([dict(id=i, name=name) for i, name in enumerate(names, 1)])
        self._images = JsonFile(self.out / IMAGES, f'{{"categories": {categories},\n"images": [', ']}')
        self._detections = JsonFile(self.out / JSON)
        self._table = CsvFile(self.out / CSV, COLUMNS)

    def _read(self, paths: Iterable[Path], progress: Progress, task: TaskID) -> Iterator[tuple[Path, np.ndarray]]:
        for path in paths:
            try:
                yield path, read_image(path)
            except UserError as error:
                self.skipped.append(str(error))
                progress.advance(task)

    def _predict_stills(self, batch: Sequence[tuple[Path, np.ndarray]]) -> None:
        try:
            samples = self.detector.predict_samples([image for _, image in batch])
            drawn = [self._draw(image, sample) for (_, image), sample in zip(batch, samples)]
        except MemoryError:
            self.skipped += [
                f'{path}: not enough memory for {image.shape[1]}x{image.shape[0]} px' for path, image in batch
            ]
            return
        for (path, image), sample, picture in zip(batch, samples, drawn):
            file = self._folder.write_image(relative_path(path, self._root), picture)
            self._record(path, image, sample, file)

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
                        self._record(path, frame, sample, video.path, number)
            except UserError as error:
                if video is not None:
                    raise
                self.skipped.append(str(error))

    def _video(self, path: Path, frame: np.ndarray) -> VideoFile:
        file = self._folder.create(relative_path(path, self._root), (SUFFIX,))
        video = VideoFile(file, frame_rate(path), (frame.shape[1], frame.shape[0]))
        if not video.in_browsers and not self.notes:
            self.notes.append('this OpenCV has no VP9: the videos are in MPEG-4 Part 2, which browsers do not play')
        return video

    def _record(
        self, path: Path, image: np.ndarray, sample: DetDataSample, picture: Path, frame: Optional[int] = None
    ) -> None:
        """Write an image's results."""
        found = self.detector.detections(sample)
        number = {} if frame is None else dict(frame=frame)
        self._images.extend(
            [
                dict(
                    id=self.images,
                    file_name=str(path),
                    **number,
                    width=image.shape[1],
                    height=image.shape[0],
                    detections=len(found),
                    picture=picture.relative_to(self.out).as_posix(),
                )
            ]
        )
        self._detections.extend({**_coco_record(self.images, path, one), **number} for one in found)
        place = [str(path), '' if frame is None else frame]
        cells = [[one.name, f'{one.score:.4f}', *(f'{value:.2f}' for value in one.box)] for one in found]
        self._table.extend([*place, *row] for row in cells or [[''] * 6])
        self.images += 1

    def _draw(self, image: np.ndarray, sample: DetDataSample) -> np.ndarray:
        """A copy of the image (H, W, 3), BGR, with the boxes drawn in."""
        classes = self.detector.model.dataset_meta['classes']
        return draw_instances(image, sample.pred_instances, classes, self.detector.score_thr, bgr=True)


def earlier_pictures(out: Path) -> list[Path]:
    """The pictures that the run which wrote ``out/images.json`` made, as far as they lie in ``out/pictures``."""
    folder = (out / PICTURES).resolve()
    pictures: dict[Path, None] = {}
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # none that can be told
        for image in json.loads((out / IMAGES).read_bytes())['images']:
            path = out / image['picture']
            if path.parent.resolve().is_relative_to(folder) and path.is_file():
                pictures[path] = None
    return list(pictures)


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
