"""What a format of exported files is, and what a file of any format says about itself."""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
from torch import Tensor

from mixdet.deploy.exportable import ExportableSSDLite
from mixdet.version import __version__

FP32, FP16, INT8 = PRECISIONS = ('fp32', 'fp16', 'int8')
OUTPUTS = {True: ('boxes', 'scores', 'labels'), False: ('boxes', 'scores')}  # with and without NMS
INPUT = 'image'

Outputs = tuple[np.ndarray, ...]
Inference = Callable[[np.ndarray], Outputs]


class Thresholds(NamedTuple):
    """What of a detector's ``test_cfg`` turns the boxes and scores of all anchors into detections.

    Attributes:
        score_thr: scores must be above it.
        iou_threshold: of two boxes of a class that overlap more, the worse one is dropped.
        max_per_img: most detections in an image.
        candidates: how many of an image's class scores, the best, enter NMS.
    """

    score_thr: float
    iou_threshold: float
    max_per_img: int
    candidates: int


class Metadata(NamedTuple):
    """What a user of an exported file must know. It is stored in the file, or in JSON beside it.

    Attributes:
        classes: names of the classes.
        input_size: height and width of the input, px.
        mean: of each channel, RGB; the input is ``(image - mean) / std``.
        std: of each channel, RGB.
        resize: how an image is stretched to the input size, one of ``RESIZES``.
        nms: whether the file includes NMS.
        config: name of the config.
        version: of mixdet.
        thresholds: for NMS outside of the file; None in files of mixdet 0.1, and for another kind of NMS.
    """

    classes: tuple[str, ...]
    input_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str
    nms: bool
    config: str
    version: str = __version__
    thresholds: Optional[Thresholds] = None

    def to_json(self) -> dict[str, Any]:
        """The metadata as JSON has them."""
        return {**self._asdict(), 'thresholds': self.thresholds._asdict() if self.thresholds else None}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> 'Metadata':
        """The inverse of ``to_json``. Raises KeyError, TypeError or ValueError if ``content`` is anything else."""
        content = {'thresholds': None, **content}
        values = {name: _tuple(content[name]) for name in cls._fields}
        if content['thresholds'] is not None:
            values['thresholds'] = Thresholds(**content['thresholds'])
        metadata = cls(**values)
        sizes, floats = metadata.input_size, (*metadata.mean, *metadata.std)
        if len(sizes) != 2 or not all(isinstance(side, int) for side in sizes):
            raise ValueError(f'input_size is {sizes!r}')
        if len(floats) != 6 or not all(isinstance(value, (int, float)) for value in floats):
            raise ValueError('mean and std must be three numbers each')
        if not all(isinstance(name, str) for name in metadata.classes):
            raise ValueError('classes must be names')
        return metadata


class Job(NamedTuple):
    """One file to write.

    Attributes:
        network: ready to be traced, in the precision float32; its ``nms`` is that of the format, or None.
        example: an input of the network, (1, 3, H, W), or of two images for ``dynamic_batch``.
        metadata: for the formats that store them inside.
        precision: one of ``PRECISIONS``.
        calibration: for int8 the normalised images (1, 3, H, W), float32, to calibrate on; can be gone through again.
        dynamic_batch: accept batches of any size.
    """

    network: ExportableSSDLite
    example: Tensor
    metadata: Metadata
    precision: str = FP32
    calibration: Iterable[np.ndarray] = ()
    dynamic_batch: bool = False


class Opened(NamedTuple):
    """A file that is ready to run.

    Attributes:
        run: from normalised images (N, 3, H, W), float32 RGB, to the outputs of ``ExportableSSDLite``.
        metadata: ``Metadata.to_json`` as the file has it; None if it lies in JSON beside the file.
    """

    run: Inference
    metadata: Optional[dict[str, Any]]


class Format(NamedTuple):
    """A kind of exported file: a row of the table ``FORMATS``.

    ``write`` and ``open_file`` import what they need when they are called; a missing package is an ImportError, which
    their callers turn into advice.

    Attributes:
        name: the value of ``--format``.
        suffix: of the file, or of the folder if ``is_folder``.
        write: makes the file, or fills the folder, which exists; the path has the suffix and is nobody else's.
        open_file: makes the file at a path ready to run on that many threads.
        runtime: the package that ``open_file`` imports, as pip names it.
        extra: of setup.py, with what ``write`` and ``open_file`` import; '' if PyTorch suffices.
        packages: the modules that ``write`` imports.
        precisions: those of ``PRECISIONS`` that it has.
        nms: how NMS is inside, as ``ExportableSSDLite`` takes it; None if it is outside, see ``mixdet.deploy.finish``.
        is_folder: whether a file is a folder.
        danger: what a file is that it may do harm when it is opened and needs ``--unsafe-load``, as in 'is a program';
            '' if it can only compute.
        metadata_inside: whether the file itself holds the metadata; else they are in JSON beside it, or in the folder.
        dynamic_batch: whether files can accept batches of any size.
        minimum_torch: the oldest PyTorch that can write it.
        mixconv: the form of mixed convolutions that its runtime computes fastest, one of ``fusing.EXPORTS``.
        platforms: values of ``sys.platform`` where files can run; empty for all. They can be written anywhere.
    """

    name: str
    suffix: str
    write: Callable[[Job, Path], None]
    open_file: Callable[[Path, int], Opened]
    runtime: str
    extra: str = ''
    packages: tuple[str, ...] = ()
    precisions: tuple[str, ...] = (FP32,)
    nms: Optional[str] = None
    is_folder: bool = False
    danger: str = ''
    metadata_inside: bool = False
    dynamic_batch: bool = False
    minimum_torch: str = '2.1'
    mixconv: str = 'export'
    platforms: tuple[str, ...] = ()

    @property
    def runs_here(self) -> bool:
        """Whether this operating system can run its files."""
        return not self.platforms or sys.platform in self.platforms


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress reports and warnings of exporters and quantisers."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        nothing = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)


def file_size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [file for file in path.rglob('*') if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
