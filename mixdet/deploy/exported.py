"""Running exported files: as a function on arrays, and as a detector in MMDetection's evaluation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import torch
from mmdet.models import BaseDetector
from mmengine.structures import InstanceData
from torch import Tensor

from mixdet.deploy.export import METADATA, SUFFIXES, Metadata
from mixdet.errors import UserError, first_line
from mixdet.registry import MODELS

Outputs = tuple[np.ndarray, ...]
Inference = Callable[[np.ndarray], Outputs]


def format_of(path: Union[str, Path]) -> Optional[str]:
    """The export format that the suffix of ``path`` stands for; None for other suffixes."""
    return {suffix: name for name, suffix in SUFFIXES.items()}.get(Path(path).suffix)


def load_exported(path: Union[str, Path]) -> tuple[Inference, Metadata]:
    """An exported file as a function from normalised images (N, 3, H, W), float32 RGB, to its outputs; its metadata.

    Raises:
        UserError: if the file does not exist, has another suffix or was not exported by mixdet, or a package is
            missing.
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
        return run, Metadata(**{key: _list_to_tuple(content[key]) for key in Metadata._fields})
    except UserError:
        raise
    except Exception as error:  # every runtime has its own kinds of errors
        raise UserError(f'{path} is not a detector exported by tools/export.py: {first_line(error)}') from error


def _load_onnx(path: Path) -> tuple[Inference, dict]:
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


def _from_json(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _load_torchscript(path: Path) -> tuple[Inference, dict]:
    extra = {METADATA: ''}
    program = torch.jit.load(str(path), map_location='cpu', _extra_files=extra)
    return _torch_runner(program), json.loads(extra[METADATA])


def _load_program(path: Path) -> tuple[Inference, dict]:
    extra = {METADATA: ''}
    program = torch.export.load(path, extra_files=extra).module()
    return _torch_runner(program), json.loads(extra[METADATA])


def _torch_runner(program: Callable[[Tensor], tuple[Tensor, ...]]) -> Inference:
    def run(images: np.ndarray) -> Outputs:
        with torch.no_grad():
            return tuple(output.numpy() for output in program(torch.from_numpy(images)))

    return run


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@MODELS.register_module()
class ExportedDetector(BaseDetector):
    """An exported file as a detector of MMDetection, which ``tools/test.py`` can evaluate.

    Args:
        file: exported with NMS.
        data_preprocessor: that of the config it was exported from.

    Attributes:
        dataset_meta: with the names of its ``classes``.

    Raises:
        UserError: if the file cannot be loaded or has no NMS.
    """

    def __init__(self, file: str, data_preprocessor: Optional[dict] = None) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.run, self.metadata = load_exported(file)
        if not self.metadata.nms:
            raise UserError(f'{file} was exported with --no-nms; only a file with NMS returns detections')
        self.dataset_meta = dict(classes=self.metadata.classes)

    def predict(self, batch_inputs: Tensor, batch_data_samples: list, rescale: bool = True) -> list:
        """MMDetection's data samples with the detections in normalised images (N, 3, H, W), one image at a time.

        Raises UserError if the images have another size than the file was exported for.
        """
        height, width = self.metadata.input_size
        if tuple(batch_inputs.shape[-2:]) != (height, width):
            raise UserError(
                f'the file was exported for {height}x{width} px, but the images of the config have '
                f'{batch_inputs.shape[-2]}x{batch_inputs.shape[-1]}'
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
        """Not available: raises NotImplementedError."""
        raise NotImplementedError('an exported detector cannot be trained')

    def _forward(self, batch_inputs: Tensor, batch_data_samples: Optional[list] = None) -> Outputs:
        return self.run(batch_inputs.cpu().numpy())

    def extract_feat(self, batch_inputs: Tensor) -> None:
        """Not available: raises NotImplementedError."""
        raise NotImplementedError('an exported detector has no features')
