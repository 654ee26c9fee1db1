"""Training images as the training sees them: through the data set's own pipeline, augmented."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.structures.bbox import BaseBoxes
from PIL import Image

from mixdet.engine.randomness import seeded
from mixdet.engine.seeded_data import SeededDataset
from mixdet.evaluation.details import Box
from mixdet.report.pictures import IGNORED, LABELLED, box_records, remove_pictures, save_bare

PREFIX = 'train'


class Sample(NamedTuple):
    """A sample: its ``data_index`` in the data set, the image's ``path``, the augmented ``picture`` and ``boxes``."""

    data_index: int
    path: str
    picture: Image.Image
    boxes: list[Box]


def augmented_samples(dataset: Any, count: int, seed: int = 0) -> Iterator[Sample]:
    """``count`` samples, drawn at random without repetition (all of them if there are fewer).

    Neither the data set, nor the state of its transforms, nor any random number generator is changed.

    Raises:
        ValueError: if the pipeline does not end as MMDetection's do, with an image and its boxes.
    """
    dataset = _detached(dataset)
    for number, index in enumerate(np.random.default_rng(seed).permutation(len(dataset))[:count].tolist()):
        with seeded(seed, number):
            yield _sample(index, dataset[index])


def save_samples(dataset: Any, count: int, seed: int, folder: Path) -> list[dict]:
    """Save ``count`` samples for the report in ``folder``; returns for each its file, image, size and boxes."""
    remove_pictures(folder, PREFIX)
    classes = class_names(dataset)
    records = []
    for number, sample in enumerate(augmented_samples(dataset, count, seed), 1):
        bare = save_bare(sample.picture, folder, f'{PREFIX}_{number}.jpg')
        records.append(dict(bare, image=sample.path, truth=box_records(sample.boxes, classes)))
    return records


def class_names(dataset: Any) -> list[str]:
    """The names of the data set's classes."""
    return [str(name) for name in (dataset.metainfo or {}).get('classes', ())]


def _detached(dataset: Any) -> Any:
    """A copy that shares the annotations, but not the transforms: some keep images of earlier samples."""
    if isinstance(dataset, SeededDataset):
        dataset = dataset.dataset
    detached = copy.copy(dataset)
    if hasattr(dataset, 'pipeline'):
        detached.pipeline = copy.deepcopy(dataset.pipeline)
    if hasattr(dataset, 'dataset'):
        detached.dataset = _detached(dataset.dataset)
    if hasattr(dataset, 'datasets'):
        detached.datasets = [_detached(inner) for inner in dataset.datasets]
    return detached


def _sample(index: int, item: Any) -> Sample:
    inputs: Any = item.get('inputs') if isinstance(item, dict) else None
    data: Any = item.get('data_samples') if isinstance(item, dict) else None
    if not isinstance(inputs, torch.Tensor) or inputs.dim() != 3 or not hasattr(data, 'gt_instances'):
        raise ValueError(f'sample {index}: the pipeline gives no image with boxes, as PackDetInputs does')
    boxes = [
        Box((x1, y1, x2, y2), int(label), state)
        for instances, state in ((data.gt_instances, LABELLED), (data.get('ignored_instances'), IGNORED))
        if instances is not None and 'bboxes' in instances
        for (x1, y1, x2, y2), label in zip(_corners(instances.bboxes), instances.labels.tolist())
    ]
    return Sample(index, str(data.metainfo.get('img_path') or ''), _picture(inputs), boxes)


def _corners(boxes: Any) -> Sequence[Sequence[float]]:
    """x1, y1, x2, y2 in px of boxes of any kind that MMDetection has."""
    if isinstance(boxes, BaseBoxes):
        boxes = boxes.convert_to('hbox').tensor
    return boxes.reshape(-1, 4).tolist()


def _picture(inputs: torch.Tensor) -> Image.Image:
    """An image (3 or 1, H, W), BGR as MMCV reads it; one that the pipeline normalised is stretched to 0..255."""
    pixels = inputs.permute(1, 2, 0).float().numpy()
    if inputs.is_floating_point() and (pixels.min() < 0 or pixels.max() <= 1):
        low, high = float(pixels.min()), float(pixels.max())
        pixels = (pixels - low) * (255 / max(high - low, 1e-6))
    pixels = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return Image.fromarray(np.ascontiguousarray(pixels[..., 2::-1]))
