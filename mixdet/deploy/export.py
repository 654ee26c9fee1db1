"""Exporting an SSDLite detector to one file, and checking it against the original."""

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config

from mixdet.deploy.exportable import NMS_ONNX, NMS_STEPS, ExportableSSDLite, nms_mask_in_onnx
from mixdet.deploy.fuse import fuse
from mixdet.deploy.inference import Detector, inference_transforms
from mixdet.errors import UserError
from mixdet.version import __version__

SUFFIXES = {'onnx': '.onnx', 'torchscript': '.torchscript', 'torch-export': '.pt2'}
OUTPUTS = {True: ('boxes', 'scores', 'labels'), False: ('boxes', 'scores')}
METADATA = 'mixdet.json'  # name of the extra file in PyTorch's formats
OPSET = 18


class Metadata(NamedTuple):
    """What a user of an exported file must know: class names, input height and width, how an image becomes the input
    (stretched by ``resize``, then ``(image - mean) / std`` in RGB), and whether NMS is inside."""

    classes: tuple[str, ...]
    input_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str
    nms: bool
    config: str
    version: str = __version__


def describe(detector: Detector, config: str, nms: bool) -> Metadata:
    """The metadata of an export of ``detector``.

    Raises UserError if its images are not simply stretched to one size and normalised.
    """
    transforms = inference_transforms(detector.cfg)
    resizes = [transform for transform in transforms if 'Resize' in str(transform['type'])]
    if len(resizes) != 1 or resizes[0].get('keep_ratio', False) or 'scale' not in resizes[0]:
        raise UserError('export needs a test pipeline with one Resize to a fixed scale and keep_ratio=False')
    preprocessor = detector.model.data_preprocessor
    if not getattr(preprocessor, '_enable_normalize', False) or not preprocessor._channel_conversion:
        raise UserError('export needs a data_preprocessor with mean, std and bgr_to_rgb=True')
    width, height = resizes[0]['scale']
    return Metadata(
        classes=tuple(detector.classes),
        input_size=(height, width),
        mean=tuple(preprocessor.mean.flatten().tolist()),
        std=tuple(preprocessor.std.flatten().tolist()),
        resize=str(resizes[0]['type']).rpartition('.')[2],
        nms=nms,
        config=Path(config).stem,
    )


def export(
    detector: Detector,
    metadata: Metadata,
    path: Path,
    file_format: str,
    dynamic_batch: bool = False,
    half: bool = False,
) -> None:
    """Write ``detector`` to ``path``.

    Args:
        detector: a trained detector with ``mixdet.SSDLiteHead``.
        metadata: from ``describe``, written into the file.
        path: file to write.
        file_format: one of ``SUFFIXES``.
        dynamic_batch: any number of images at a time instead of one. TorchScript files always take any number.
        half: weights and network in half precision; inputs, boxes and scores stay float32.

    Raises:
        UserError: if the detector cannot be exported, or a package is missing.
    """
    nms = (NMS_ONNX if file_format == 'onnx' else NMS_STEPS) if metadata.nms else None
    network = ExportableSSDLite(fuse(detector.model, 'export'), metadata.input_size, nms).eval()
    if half:
        network.halve()
    example = torch.zeros(2 if dynamic_batch else 1, 3, *metadata.input_size)
    batch = ({0: torch.export.Dim('batch', min=1)},) if dynamic_batch else None
    with torch.no_grad(), quiet():
        if file_format == 'torchscript':
            program = torch.jit.trace(network, example, check_trace=False)
            torch.jit.save(program, str(path), _extra_files={METADATA: json.dumps(metadata._asdict())})
        elif file_format == 'torch-export':
            program = torch.export.export(network, (example,), dynamic_shapes=batch, strict=False)
            torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata._asdict())})
        else:
            _export_onnx(network, example, batch, metadata, path)


def _export_onnx(network, example, batch, metadata: Metadata, path: Path) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401  (what torch writes ONNX with)
    except ImportError as error:
        raise UserError(f"--format onnx: {error}; pip install -e '.[onnx]'") from error
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=['image'],
        output_names=OUTPUTS[metadata.nms],
        dynamic_shapes=batch,
        custom_translation_table={torch.ops.mixdet.nms_mask.default: nms_mask_in_onnx},
        verbose=False,
    )
    model = program.model_proto
    onnx.helper.set_model_props(
        model,
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata._asdict().items()},
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' reports on their own progress."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)


class Difference(NamedTuple):
    """How far exported detections are from the original's: px, score, and detections without a counterpart."""

    boxes: float
    scores: float
    unmatched: int
    detections: int


def compare(originals: Sequence, exported: Sequence, score_thr: float = 0.05) -> Difference:
    """Compare detections, images in the same order, each (boxes (n, 4), scores (n), labels (n)) of NumPy arrays.

    A detection's counterpart has its class and the nearest box. Those within 1e-3 of ``score_thr`` may miss theirs.
    """
    box_difference = score_difference = 0.0
    unmatched = total = 0
    for (boxes, scores, labels), (other_boxes, other_scores, other_labels) in zip(originals, exported):
        for box, score, label in zip(boxes, scores, labels):
            if score < score_thr + 1e-3:
                continue
            total += 1
            same = np.flatnonzero(other_labels == label)
            if not len(same):
                unmatched += 1
                continue
            distances = np.abs(other_boxes[same] - box).max(1)
            nearest = same[distances.argmin()]
            if distances.min() > 5:
                unmatched += 1
                continue
            box_difference = max(box_difference, float(distances.min()))
            score_difference = max(score_difference, abs(float(score - other_scores[nearest])))
    return Difference(box_difference, score_difference, unmatched, total)


def verification_images(cfg: Config, limit: int = 8) -> list[Path]:
    """The first images of the config's test set, if it is there."""
    dataset = cfg.get('test_dataloader', {}).get('dataset', {})
    folder = Path(dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('img', ''))
    if not str(folder) or not os.path.isdir(folder):
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ('.jpg', '.jpeg', '.png'))[:limit]
