"""Predicting whole folders and videos into files."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from os.path import commonpath
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
from rich.progress import Progress

from mixdet.deploy.images import frame_rate, is_video, read_frames, read_image
from mixdet.deploy.inference import Detection, Detector
from mixdet.errors import UserError

JSON, CSV, PICTURES = 'predictions.json', 'predictions.csv', 'pictures'


class Predictor:
    """Runs a ``Detector`` over files and writes, below ``out``, ``predictions.json`` (COCO results, with the file and
    the class by name besides), ``predictions.csv`` and ``pictures/``.

    Attributes:
        skipped (list[str]): one line for each file that could not be read.
        images (int): images and frames that were.

    Raises:
        UserError: if ``out`` holds predictions already.
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
        self._rows: list[dict] = []
        self._visualizer = None

    def run(self, paths: Sequence[Path]) -> None:
        """Predict every file, with a progress bar, and write the results."""
        self.out.mkdir(parents=True, exist_ok=True)
        root = Path(commonpath([path.absolute().parent for path in paths]))
        with Progress() as progress:
            task = progress.add_task('Predicting', total=len(paths))
            stills = (path for path in paths if not is_video(path))
            for batch in _batches(self._read(stills, progress, task), self.batch_size):
                for (path, image), sample in zip(batch, self.detector.predict_samples([image for _, image in batch])):
                    self._add(str(path), sample)
                    target = self._picture(path, root)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(target), self._draw(image, sample))
                progress.advance(task, len(batch))
            for path in filter(is_video, paths):
                self._video(path, root)
                progress.advance(task)
        (self.out / JSON).write_text(json.dumps(self._rows, indent=1))
        with (self.out / CSV).open('w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(['file', 'frame', 'class', 'score', 'x1', 'y1', 'x2', 'y2'])
            for row in self._rows:
                x, y, width, height = row['bbox']
                corners = (x, y, x + width, y + height)
                writer.writerow(
                    [row['file_name'], row.get('frame', ''), row['category'], f'{row["score"]:.4f}']
                    + [f'{value:.2f}' for value in corners]
                )

    def _read(self, paths: Iterable[Path], progress: Progress, task) -> Iterator[tuple[Path, np.ndarray]]:
        for path in paths:
            try:
                yield path, read_image(path)
            except UserError as error:
                self.skipped.append(str(error))
                progress.advance(task)

    def _add(self, name: str, sample, frame: Optional[int] = None) -> None:
        for found in self.detector.detections(sample):
            self._rows.append(_coco_row(self.images, name, found, frame))
        self.images += 1

    def _video(self, path: Path, root: Path) -> None:
        writer, target = None, self._picture(path, root).with_suffix('.mp4')
        try:
            frames = enumerate(read_frames(path))
            for batch in _batches(frames, self.batch_size):
                samples = self.detector.predict_samples([frame for _, frame in batch])
                for (number, frame), sample in zip(batch, samples):
                    self._add(str(path), sample, number)
                    if writer is None:
                        target.parent.mkdir(parents=True, exist_ok=True)
                        size = (frame.shape[1], frame.shape[0])
                        codec = cv2.VideoWriter_fourcc(*'mp4v')
                        writer = cv2.VideoWriter(str(target), codec, frame_rate(path), size)
                    writer.write(self._draw(frame, sample))
        except UserError as error:
            self.skipped.append(str(error))
        finally:
            if writer is not None:
                writer.release()

    def _picture(self, path: Path, root: Path) -> Path:
        relative = path.absolute().relative_to(root)
        name = relative.name if relative.suffix == '.jpg' else f'{relative.name}.jpg'  # a.png beside a.jpg
        return self.out / PICTURES / relative.parent / name

    def _draw(self, image: np.ndarray, sample) -> np.ndarray:
        """The image with its boxes, BGR."""
        if self._visualizer is None:
            from mmdet.visualization import DetLocalVisualizer

            self._visualizer = DetLocalVisualizer()
            self._visualizer.dataset_meta = self.detector.model.dataset_meta
        self._visualizer.add_datasample(
            'prediction', image[..., ::-1], sample, draw_gt=False, pred_score_thr=self.detector.score_thr, show=False
        )
        return self._visualizer.get_image()[..., ::-1]


def _coco_row(image_id: int, name: str, found: Detection, frame: Optional[int]) -> dict:
    x1, y1, x2, y2 = found.box
    row = dict(
        image_id=image_id,
        category_id=found.label + 1,
        bbox=[x1, y1, x2 - x1, y2 - y1],
        score=found.score,
        category=found.name,
        file_name=name,
    )
    return row if frame is None else {**row, 'frame': frame}


def _batches(items: Iterable, size: int) -> Iterator[list]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
