"""Exporting an SSDLite detector to one file."""

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mixdet.compat.stack import is_at_least
from mixdet.datasets.wrappers import unwrap_dataset
from mixdet.deploy.exportable import NMS_ONNX, NMS_STEPS, ExportableSSDLite, nms_mask_in_onnx, nms_mask_operator
from mixdet.deploy.fusing import fuse
from mixdet.deploy.inference import Detector, inference_transforms
from mixdet.engine.atomic import check_new, new_file
from mixdet.errors import UserError
from mixdet.version import __version__

SUFFIXES = {'onnx': '.onnx', 'torchscript': '.torchscript', 'torch-export': '.pt2'}
# the oldest PyTorch that can write the format, where that is not the oldest that mixdet supports
MINIMUM_TORCH = {'onnx': '2.6', 'torch-export': '2.6'}
MINIMUM_TORCH_HALF = '2.2'  # before, PyTorch has no convolution of float16 on CPUs
OUTPUTS = {True: ('boxes', 'scores', 'labels'), False: ('boxes', 'scores')}
METADATA = 'mixdet.json'  # the extra file that holds the metadata in PyTorch's formats
OPSET = 18
RESIZES = ('Resize', 'TFResize')  # those that docs/onnx_example.py implements


class Metadata(NamedTuple):
    """What a user of an exported file must know. It is stored in the file.

    Attributes:
        classes: names of the classes.
        input_size: height and width of the input, px.
        mean: of each channel, RGB; the input is ``(image - mean) / std``.
        std: of each channel, RGB.
        resize: how an image is stretched to the input size, one of ``RESIZES``.
        nms: whether the file includes NMS.
        config: name of the config.
        version: of mixdet.
    """

    classes: tuple[str, ...]
    input_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str
    nms: bool
    config: str
    version: str = __version__


def require_torch(needed: str, option: str) -> None:
    """Raise UserError unless PyTorch is the version that is ``needed`` for ``option``, or newer."""
    if not is_at_least(torch.__version__, needed):
        raise UserError(f'{option} needs PyTorch {needed}, and {torch.__version__} is installed')


def check_export_path(path: Path, file_format: str, half: bool = False) -> None:
    """Raise UserError unless PyTorch can write ``file_format`` and ``path`` has its suffix and does not exist yet.

    Args:
        path: the file to write.
        file_format: one of ``SUFFIXES``.
        half: in half precision.
    """
    if file_format in MINIMUM_TORCH:
        require_torch(MINIMUM_TORCH[file_format], f'--format {file_format}')
    if half:
        require_torch(MINIMUM_TORCH_HALF, '--half')
    if path.suffix != SUFFIXES[file_format]:
        raise UserError(f'{path}: a file in format {file_format} must end in {SUFFIXES[file_format]}')
    check_new(path)


def export_metadata(detector: Detector, config: str, nms: bool) -> Metadata:
    """The metadata of an export of ``detector``, whose config is the file ``config``, with or without NMS.

    Raises UserError if its images are preprocessed by more than stretching to one size and normalisation.
    """
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
    half: bool = False,
) -> None:
    """Write ``detector`` to ``path``, which is there once it is whole.

    Args:
        detector: a trained detector with ``mixdet.SSDLiteHead``, made with ``fuse=False``.
        metadata: from ``export_metadata``; stored in the file.
        path: file to write; it must pass ``check_export_path``.
        file_format: one of ``SUFFIXES``.
        dynamic_batch: accept batches of any size instead of one image. TorchScript files always do.
        half: network in half precision; inputs, boxes and scores stay float32.

    Raises:
        UserError: if the detector cannot be exported, ``path`` exists or has another suffix, or a package is missing.
        ValueError: if the detector is fused already.
    """
    check_export_path(path, file_format, half)
    nms = (NMS_ONNX if file_format == 'onnx' else NMS_STEPS) if metadata.nms else None
    network = ExportableSSDLite(fuse(detector.model, 'export'), metadata.input_size, nms).eval()
    if half:
        network.halve()
    example = torch.zeros(2 if dynamic_batch else 1, 3, *metadata.input_size)
    # PyTorch 2.1 has no Dim, and TorchScript needs none
    batch = ({0: torch.export.Dim('batch', min=1)},) if dynamic_batch and file_format in MINIMUM_TORCH else None
    extra, content = {METADATA: json.dumps(metadata._asdict())}, io.BytesIO()
    with new_file(path) as part, torch.no_grad(), quiet():
        # PyTorch's own writing to a full disk ends the process
        if file_format == 'torchscript':
            program = torch.jit.trace(network, example, check_trace=False)
            torch.jit.save(program, content, _extra_files=extra)
            part.write_bytes(content.getbuffer())
        elif file_format == 'torch-export':
            program = torch.export.export(network, (example,), dynamic_shapes=batch, strict=False)
            torch.export.save(program, content, extra_files=extra)
            part.write_bytes(content.getbuffer())
        else:
            _export_onnx(network, example, batch, metadata, part)


def _export_onnx(network: nn.Module, example: Tensor, batch: Optional[tuple], metadata: Metadata, path: Path) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ImportError as error:
        raise UserError(f"--format onnx: {error}; pip install -e '.[onnx]'") from error
    program: Any = torch.onnx.export(  # by its annotations it may return None, which it does without dynamo
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
    if batch and not model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise UserError(
            f'--dynamic-batch: PyTorch {torch.__version__} fixes the number of images; use a newer one, or leave it out'
        )
    onnx.helper.set_model_props(
        model,
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata._asdict().items()},
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress reports and warnings of PyTorch's exporters."""
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
    """The first ``limit`` images of the config's test set; none if its folder does not exist."""
    dataset = unwrap_dataset(cfg.get('test_dataloader', {}).get('dataset', {}))
    folder = Path(dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('img', ''))
    if not str(folder) or not os.path.isdir(folder):
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ('.jpg', '.jpeg', '.png'))[:limit]
