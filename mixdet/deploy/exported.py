"""Running exported files: as a function of arrays, and in MMDetection's own evaluation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Optional, Union

import numpy as np
import torch
from mmdet.models import BaseDetector
from mmengine.structures import InstanceData
from torch import Tensor

from mixdet.deploy.export import METADATA, SUFFIXES, Metadata
from mixdet.errors import UserError, first_line
from mixdet.registry import MODELS

Outputs = tuple[np.ndarray, ...]


def format_of(path: Union[str, Path]) -> Optional[str]:
    """The format of an exported detector, by the file's suffix; None for other files."""
    return {suffix: name for name, suffix in SUFFIXES.items()}.get(Path(path).suffix)


def load_exported(path: Union[str, Path]) -> tuple[Callable[[np.ndarray], Outputs], Metadata]:
    """A function from normalised images (N, 3, H, W), float32 RGB, to the file's outputs, and its metadata.

    Raises:
        UserError: if the file is missing, is none of the formats or was not written by mixdet.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path} does not exist; check the path')
    file_format = format_of(path)
    if file_format is None:
        raise UserError(f'{path}: an exported file must end in one of {", ".join(SUFFIXES.values())}')
    loaders = {'onnx': _load_onnx, 'torchscript': _load_torchscript, 'torch-export': _load_program}
    try:
        run, content = loaders[file_format](path)
        return run, Metadata(**{key: _tuple(content[key]) for key in Metadata._fields})
    except UserError:
        raise
    except Exception as error:  # each runtime has errors of its own
        raise UserError(f'{path} is no detector exported by tools/export.py: {first_line(error)}') from error


def _load_onnx(path: Path):
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f'{path} needs onnxruntime, which is not installed: pip install onnxruntime') from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=onnxruntime.get_available_providers())
    properties = session.get_modelmeta().custom_metadata_map
    content = {key: _from_json(value) for key, value in properties.items()}
    return lambda images: tuple(session.run(None, {'image': images})), content


def _from_json(value: str):
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _load_torchscript(path: Path):
    extra = {METADATA: ''}
    program = torch.jit.load(str(path), map_location='cpu', _extra_files=extra)
    return _torch_runner(program), json.loads(extra[METADATA])


def _load_program(path: Path):
    extra = {METADATA: ''}
    program = torch.export.load(path, extra_files=extra).module()
    return _torch_runner(program), json.loads(extra[METADATA])


def _torch_runner(program) -> Callable[[np.ndarray], Outputs]:
    def run(images: np.ndarray) -> Outputs:
        with torch.no_grad():
            return tuple(output.numpy() for output in program(torch.from_numpy(images)))

    return run


def _tuple(value):
    return tuple(value) if isinstance(value, list) else value


@MODELS.register_module()
class ExportedDetector(BaseDetector):
    """An exported file in the place of a detector, so that ``tools/test.py`` evaluates it as any other.

    Args:
        file: exported with NMS inside.
        data_preprocessor: that of the config it was exported from.
    """

    def __init__(self, file: str, data_preprocessor: Optional[dict] = None) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.run, self.metadata = load_exported(file)
        if not self.metadata.nms:
            raise UserError(f'{file} was exported with --no-nms; only a file with NMS inside gives detections')

    def predict(self, batch_inputs: Tensor, batch_data_samples: list, rescale: bool = True) -> list:
        """Detections of normalised images (N, 3, H, W), one at a time, as MMDetection's data samples."""
        height, width = self.metadata.input_size
        if tuple(batch_inputs.shape[-2:]) != (height, width):
            raise UserError(
                f'the file was exported for {height}x{width} px, but the config gives {tuple(batch_inputs.shape[-2:])}'
            )
        results = []
        for image, sample in zip(batch_inputs.cpu().numpy(), batch_data_samples):
            boxes, scores, labels = (torch.from_numpy(output[0]) for output in self.run(image[None]))
            if rescale:
                boxes = boxes / boxes.new_tensor(sample.scale_factor).repeat(2)
            found = InstanceData(bboxes=boxes, scores=scores, labels=labels)
            results.append(found[scores > 0])
        return self.add_pred_to_datasample(batch_data_samples, results)

    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict:
        """Not to be had: raises NotImplementedError."""
        raise NotImplementedError('an exported detector cannot be trained')

    def _forward(self, batch_inputs: Tensor, batch_data_samples: Optional[list] = None) -> Outputs:
        return self.run(batch_inputs.cpu().numpy())

    def extract_feat(self, batch_inputs: Tensor) -> None:
        """Not to be had: raises NotImplementedError."""
        raise NotImplementedError('an exported detector has no features')
