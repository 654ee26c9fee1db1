"""Exporting an SSDLite detector to one file."""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from mmdet.models import BaseDetector
from mmengine.config import Config

from mixdet.compat.stack import is_at_least
from mixdet.datasets.wrappers import unwrap_dataset
from mixdet.deploy.exportable import ExportableSSDLite
from mixdet.deploy.exported import ExportedDetector, load_exported
from mixdet.deploy.formats import FORMATS
from mixdet.deploy.formats.base import FP16, FP32, INT8, Format, Job, Metadata, Thresholds, quiet
from mixdet.deploy.formats.sidecar import SUFFIX, write_sidecar
from mixdet.deploy.fusing import fuse
from mixdet.deploy.inference import Detector, inference_transforms
from mixdet.deploy.static_padding import use_own_padding
from mixdet.engine.atomic import check_new, new_files
from mixdet.errors import UserError

MINIMUM_TORCH_HALF = '2.2'  # before, PyTorch has no convolution of float16 on CPUs
RESIZES = ('Resize', 'TFResize')  # those that docs/onnx_example.py implements


class CalibrationImages:
    """The normalised images (1, 3, H, W), float32 RGB, that 8 bits are calibrated on, made again each time.

    Args:
        detector: whose preprocessing is used.
        images: (H, W, 3), uint8 BGR.
    """

    def __init__(self, detector: Detector, images: Sequence[np.ndarray]) -> None:
        self._detector, self._images = detector, images

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._detector.preprocess([image]).numpy() for image in self._images)


def require_torch(needed: str, option: str) -> None:
    """Raise UserError unless PyTorch is the version that is ``needed`` for ``option``, or newer."""
    if not is_at_least(torch.__version__, needed):
        raise UserError(f'{option} needs PyTorch {needed}, and {torch.__version__} is installed')


def check_export(path: Path, file_format: str, precision: str = FP32, dynamic_batch: bool = False) -> Format:
    """The format of a file to write, once it is known that it can be written.

    Args:
        path: the file or folder to write.
        file_format: one of ``FORMATS``.
        precision: one of ``PRECISIONS``.
        dynamic_batch: whether it is to accept batches of any size.

    Raises:
        UserError: if PyTorch is too old for the format or a package missing, the format lacks the precision or batches
            of any size, ``path`` has another suffix, or it or the file of its metadata exists.
    """
    row = FORMATS[file_format]
    require_torch(row.minimum_torch, f'--format {file_format}')
    if precision not in row.precisions:
        raise UserError(f'--precision {precision}: --format {file_format} has only {", ".join(row.precisions)}')
    if precision == FP16:
        require_torch(MINIMUM_TORCH_HALF, '--precision fp16')
    if dynamic_batch and not row.dynamic_batch:
        raise UserError(f'--dynamic-batch: files in format {file_format} take one image at a time')
    if path.suffix != row.suffix:
        raise UserError(f'{path}: a {_kind(row)} in format {file_format} must end in {row.suffix}')
    for package in row.packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--format {file_format}: {package} is not installed; pip install -e '.[{row.extra}]'")
    check_new(path)
    if not (row.metadata_inside or row.is_folder):
        check_new(path.with_name(path.name + SUFFIX))
    return row


def export_metadata(detector: Detector, config: str, nms: bool) -> Metadata:
    """The metadata of an export of ``detector``, whose config is the file ``config``, with or without NMS.

    Raises UserError if its images are preprocessed by more than stretching to one size and normalisation, or it is an
    exported file itself.
    """
    if isinstance(detector.model, ExportedDetector):
        raise UserError('an exported file cannot be exported again; give the checkpoint')
    resize, *rest = inference_transforms(detector.cfg)[1:] or [dict(type='')]
    name, *others = (str(step['type']).rpartition('.')[2] for step in (resize, *rest))
    stretches = name in RESIZES and 'scale' in resize and not resize.get('keep_ratio', False)
    if not stretches or resize.get('interpolation', 'bilinear') != 'bilinear' or others != ['PackDetInputs']:
        raise UserError(
            f'export needs a test pipeline with one {" or ".join(RESIZES)}, bilinear, to a fixed scale and with '
            'keep_ratio=False, and no other transform that changes the image'
        )
    preprocessor = detector.model.data_preprocessor
    if not getattr(preprocessor, '_enable_normalize', False) or not preprocessor._channel_conversion:
        raise UserError('export needs a data_preprocessor with mean, std and bgr_to_rgb=True')
    scale = resize['scale']
    width, height = (scale, scale) if isinstance(scale, int) else scale
    divisor = preprocessor.pad_size_divisor
    if width % divisor or height % divisor:
        raise UserError(f'export cannot pad: data_preprocessor.pad_size_divisor={divisor} must divide {height}x{width}')
    return Metadata(
        classes=tuple(detector.classes),
        input_size=(height, width),
        mean=tuple(preprocessor.mean.flatten().tolist()),
        std=tuple(preprocessor.std.flatten().tolist()),
        resize=name,
        nms=nms,
        config=Path(config).stem,
    )


def export(
    detector: Detector,
    metadata: Metadata,
    path: Path,
    file_format: str,
    dynamic_batch: bool = False,
    precision: str = FP32,
    calibration: Optional[CalibrationImages] = None,
) -> Metadata:
    """Write ``detector`` to ``path``, which is there, with its metadata, once it is whole and could be opened.

    Args:
        detector: a trained detector with ``mixdet.SSDLiteHead``, made with ``fuse=False``.
        metadata: from ``export_metadata``. Where the format has no NMS, it stays outside of the file.
        path: file or folder to write; it must pass ``check_export``.
        file_format: one of ``FORMATS``.
        dynamic_batch: accept batches of any size instead of one image. TorchScript files always do.
        precision: one of the format's. Inputs, boxes and scores stay float32.
        calibration: for int8, about a hundred typical images.

    Returns:
        The metadata of the file, with its thresholds.

    Raises:
        UserError: if the detector cannot be exported, ``path`` does not pass ``check_export``, there is no image to
            calibrate on, or the file cannot be opened.
        ValueError: if the detector is fused already.
    """
    row = check_export(path, file_format, precision, dynamic_batch)
    if precision == INT8 and not calibration:
        raise UserError('int8: there is no image to calibrate on')
    nms = row.nms if metadata.nms else None
    network = ExportableSSDLite(fuse(detector.model, row.mixconv), metadata.input_size, nms).eval()
    use_own_padding(network, torch.zeros(1, 3, *metadata.input_size))
    metadata = metadata._replace(nms=nms is not None, thresholds=_thresholds(network, detector.model))
    example = torch.zeros(2 if dynamic_batch else 1, 3, *metadata.input_size)
    job = Job(network, example, metadata, precision, calibration or (), dynamic_batch)
    with new_files(path) as part:
        if row.is_folder:
            part.mkdir()
        try:
            with torch.no_grad(), quiet():
                row.write(job, part)
        except ImportError as error:
            raise UserError(f"--format {file_format}: {error}; pip install -e '.[{row.extra}]'") from error
        if not row.metadata_inside:
            write_sidecar(part, metadata.to_json())
        load_exported(part, trusted=True)
    return metadata


def _kind(row: Format) -> str:
    return 'folder' if row.is_folder else 'file'


def _thresholds(network: ExportableSSDLite, detector: BaseDetector) -> Optional[Thresholds]:
    """What NMS outside of the file needs; None if it is of another kind than ``finish`` computes."""
    if detector.test_cfg.nms.get('type', 'nms') != 'nms' or detector.test_cfg.nms.get('class_agnostic', False):
        return None
    return Thresholds(network.score_thr, network.iou_threshold, network.max_per_img, network.candidates)


def verification_images(cfg: Config, limit: int = 8) -> list[Path]:
    """The first ``limit`` images of the config's test set; none if its folder does not exist."""
    dataset = unwrap_dataset(cfg.get('test_dataloader', {}).get('dataset', {}))
    folder = Path(dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('img', ''))
    if not str(folder) or not os.path.isdir(folder):
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ('.jpg', '.jpeg', '.png'))[:limit]
