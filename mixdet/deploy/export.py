"""Exporting an SSDLite detector to one file."""

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config

from mixdet.compat.stack import is_at_least
from mixdet.deploy.exportable import NMS_ONNX, NMS_STEPS, ExportableSSDLite, nms_mask_in_onnx, nms_mask_operator
from mixdet.deploy.fusing import fuse
from mixdet.deploy.inference import Detector, inference_transforms
from mixdet.errors import UserError
from mixdet.version import __version__

SUFFIXES = {'onnx': '.onnx', 'torchscript': '.torchscript', 'torch-export': '.pt2'}
# the first PyTorch that can write the format, where that is not the first that mixdet supports
MINIMUM_TORCH = {'onnx': '2.6', 'torch-export': '2.5'}
OUTPUTS = {True: ('boxes', 'scores', 'labels'), False: ('boxes', 'scores')}
METADATA = 'mixdet.json'  # name of the extra file in PyTorch's formats
OPSET = 18
RESIZES = ('Resize', 'TFResize')  # as docs/onnx_example.py does them


class Metadata(NamedTuple):
    """What a user of an exported file must know: class names, input height and width, how an image becomes the input
    (stretched by ``resize``, one of ``RESIZES``, then ``(image - mean) / std`` in RGB), and whether NMS is inside."""

    classes: tuple[str, ...]
    input_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str
    nms: bool
    config: str
    version: str = __version__


def check_target(path: Path, file_format: str) -> None:
    """Raise UserError if PyTorch is too old for ``file_format``, or ``path`` has not its suffix or is there already."""
    needed = MINIMUM_TORCH.get(file_format)
    if needed is not None and not is_at_least(torch.__version__, needed):
        raise UserError(f'--format {file_format} needs PyTorch {needed}, and {torch.__version__} is installed')
    if path.suffix != SUFFIXES[file_format]:
        raise UserError(f'{path}: a file in format {file_format} must end in {SUFFIXES[file_format]}')
    if path.exists():
        raise UserError(f'{path} exists already; choose another name or remove it')


def describe(detector: Detector, config: str, nms: bool) -> Metadata:
    """The metadata of an export of ``detector``.

    Raises UserError if its images are not simply stretched to one size and normalised.
    """
    resize, *rest = inference_transforms(detector.cfg)[1:] or [dict(type='')]
    kind, *others = (str(step['type']).rpartition('.')[2] for step in (resize, *rest))
    stretches = kind in RESIZES and 'scale' in resize and not resize.get('keep_ratio', False)
    if not stretches or resize.get('interpolation', 'bilinear') != 'bilinear' or others != ['PackDetInputs']:
        raise UserError(
            f'export needs a test pipeline with one {" or ".join(RESIZES)}, bilinear to a fixed scale and with '
            'keep_ratio=False, and nothing else that changes the image'
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
        resize=kind,
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
        path: file to write, as ``check_target`` wants it.
        file_format: one of ``SUFFIXES``.
        dynamic_batch: any number of images at a time instead of one. TorchScript files always take any number.
        half: weights and network in half precision; inputs, boxes and scores stay float32.

    Raises:
        UserError: if the detector cannot be exported, ``path`` cannot be written, or a package is missing.
    """
    check_target(path, file_format)
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
        custom_translation_table={nms_mask_operator(): nms_mask_in_onnx},
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


def verification_images(cfg: Config, limit: int = 8) -> list[Path]:
    """The first images of the config's test set, if it is there."""
    dataset = cfg.get('test_dataloader', {}).get('dataset', {})
    folder = Path(dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('img', ''))
    if not str(folder) or not os.path.isdir(folder):
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ('.jpg', '.jpeg', '.png'))[:limit]
