"""Predicting whole folders and videos into files."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from os.path import commonpath
from pathlib import Path
from typing import TYPE_CHECKING, Optional, TypeVar

import cv2
import numpy as np
from mmdet.structures import DetDataSample
from rich.progress import Progress, TaskID

from mixdet.deploy.images import frame_rate, is_video, read_frames, read_image
from mixdet.deploy.inference import Detection, Detector
from mixdet.errors import UserError

if TYPE_CHECKING:
    from mmdet.visualization import DetLocalVisualizer

T = TypeVar('T')
JSON, CSV, PICTURES = 'predictions.json', 'predictions.csv', 'pictures'


class Predictor:
    """Runs a ``Detector`` over files and writes ``predictions.json`` (COCO's results format, with the names of file and
    class added), ``predictions.csv`` and ``pictures/`` into the folder ``out``.

    Attributes:
        skipped (list[str]): one line for each file that could not be read.
        images (int): number of images and frames that were predicted.

    Raises:
        UserError: if ``out`` contains predictions already.
    """

    def __init__(self, detector: Detector, out: Path, batch_size: int = 1) -> None:
        for name in (JSON, CSV):
            if (out / name).exists():
                raise UserError(f'{out / name} exists already; give another --out or remove it')
        self.detector = detector
        self.out = out
        self.batch_size = batch_size
        self.skipped: list[str] = []
        self.images = 0
        self._records: list[dict] = []

    def run(self, paths: Sequence[Path]) -> None:
        """Predict every file, with a progress bar, and write the results."""
        self.out.mkdir(parents=True, exist_ok=True)
        root = Path(commonpath([path.absolute().parent for path in paths]))
        with Progress() as progress:
            task = progress.add_task('Predicting', total=len(paths))
            stills = (path for path in paths if not is_video(path))
            for batch in _batches(self._read(stills, progress, task), self.batch_size):
                self._predict_stills(batch, root)
                progress.advance(task, len(batch))
            for path in filter(is_video, paths):
                self._predict_video(path, root)
                progress.advance(task)
        self._write_records()

    def _read(self, paths: Iterable[Path], progress: Progress, task: TaskID) -> Iterator[tuple[Path, np.ndarray]]:
        for path in paths:
            try:
                yield path, read_image(path)
            except UserError as error:
                self.skipped.append(str(error))
                progress.advance(task)

    def _predict_stills(self, batch: Sequence[tuple[Path, np.ndarray]], root: Path) -> None:
        samples = self.detector.predict_samples([image for _, image in batch])
        for (path, image), sample in zip(batch, samples):
            self._record(path, sample)
            picture = self._picture_path(path, root)
            picture.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(picture), self._draw(image, sample))

    def _predict_video(self, path: Path, root: Path) -> None:
        writer, video = None, self._picture_path(path, root).with_suffix('.mp4')
        try:
            for batch in _batches(enumerate(read_frames(path)), self.batch_size):
                samples = self.detector.predict_samples([frame for _, frame in batch])
                for (number, frame), sample in zip(batch, samples):
                    self._record(path, sample, number)
                    if writer is None:
                        video.parent.mkdir(parents=True, exist_ok=True)
                        size = (frame.shape[1], frame.shape[0])
                        codec = cv2.VideoWriter.fourcc(*'mp4v')
                        writer = cv2.VideoWriter(str(video), codec, frame_rate(path), size)
                    writer.write(self._draw(frame, sample))
        except UserError as error:
            self.skipped.append(str(error))
        finally:
            if writer is not None:
                writer.release()

    def _record(self, path: Path, sample: DetDataSample, frame: Optional[int] = None) -> None:
        for found in self.detector.detections(sample):
            self._records.append(_coco_record(self.images, path, found, frame))
        self.images += 1

    def _picture_path(self, path: Path, root: Path) -> Path:
        relative = path.absolute().relative_to(root)
        name = relative.name if relative.suffix == '.jpg' else f'{relative.name}.jpg'  # a.png next to a.jpg
        return self.out / PICTURES / relative.parent / name

    def _draw(self, image: np.ndarray, sample: DetDataSample) -> np.ndarray:
        """A copy of the image (H, W, 3), BGR, with the boxes drawn in."""
        self._visualizer.add_datasample(
            'prediction', image[..., ::-1], sample, draw_gt=False, pred_score_thr=self.detector.score_thr, show=False
        )
        return self._visualizer.get_image()[..., ::-1]

    @cached_property
    def _visualizer(self) -> 'DetLocalVisualizer':
        from mmdet.visualization import DetLocalVisualizer  # imports matplotlib, which is slow

        visualizer = DetLocalVisualizer()
        visualizer.dataset_meta = self.detector.model.dataset_meta
        return visualizer

    def _write_records(self) -> None:
        (self.out / JSON).write_text(json.dumps(self._records, indent=1))
        with (self.out / CSV).open('w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(['file', 'frame', 'class', 'score', 'x1', 'y1', 'x2', 'y2'])
            for record in self._records:
                x, y, width, height = record['bbox']
                corners = (x, y, x + width, y + height)
                writer.writerow(
                    [record['file_name'], record.get('frame', ''), record['category'], f'{record["score"]:.4f}']
                    + [f'{value:.2f}' for value in corners]
                )


def _coco_record(image_id: int, path: Path, found: Detection, frame: Optional[int]) -> dict:
    x1, y1, x2, y2 = found.box
    record = dict(
        image_id=image_id,
        category_id=found.label + 1,
        bbox=[x1, y1, x2 - x1, y2 - y1],
        score=found.score,
        category=found.name,
        file_name=str(path),
    )
    return record if frame is None else {**record, 'frame': frame}


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
