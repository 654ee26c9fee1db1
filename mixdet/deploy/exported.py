"""Running exported files: as a function on arrays, and as a detector in MMDetection's evaluation.

PyTorch's own formats are programs. A TorchScript file can open and write files; ``torch.export.load`` unpickles parts
of a file and computes the symbolic sizes in it with Python's ``eval``, so that to look through its pickles is not
enough. They are run only if the user trusts them. ONNX can only compute, as long as it names no other file.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import torch
from mmdet.models import BaseDetector
from mmengine.structures import InstanceData
from torch import Tensor

from mixdet.compat.checkpoints import IF_TRUSTED, files_are_trusted
from mixdet.deploy.export import METADATA, SUFFIXES, Metadata
from mixdet.errors import UserError, first_line
from mixdet.registry import MODELS

PROGRAMS = ('torchscript', 'torch-export')  # formats whose files can do what any program can

Outputs = tuple[np.ndarray, ...]
Inference = Callable[[np.ndarray], Outputs]


def format_of(path: Union[str, Path]) -> Optional[str]:
    """The export format that the suffix of ``path`` stands for; None for other suffixes."""
    return {suffix: name for name, suffix in SUFFIXES.items()}.get(Path(path).suffix)


def load_exported(path: Union[str, Path], trusted: bool = False) -> tuple[Inference, Metadata]:
    """An exported file as a function from normalised images (N, 3, H, W), float32 RGB, to its outputs; its metadata.

    Args:
        path: the file.
        trusted: run it even if it is a program, as ``trust_files`` allows for all files.

    Raises:
        UserError: if the file does not exist, has another suffix or was not exported by mixdet, is a program and not
            trusted, or a package is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path} does not exist; check the path')
    file_format = format_of(path)
    if file_format is None:
        raise UserError(f'{path}: an exported file must end in one of {", ".join(SUFFIXES.values())}')
    if file_format in PROGRAMS and not (trusted or files_are_trusted()):
        raise UserError(f'{path} is a program, not only weights, and was not run; use an .onnx file, or {IF_TRUSTED}')
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
    content = path.read_bytes()
    _check_whole(path, content)
    session = onnxruntime.InferenceSession(content, options, providers=onnxruntime.get_available_providers())
    properties = session.get_modelmeta().custom_metadata_map
    values = {key: _from_json(value) for key, value in properties.items()}
    return lambda images: tuple(session.run(None, {'image': images})), values


def _check_whole(path: Path, content: bytes) -> None:
    """Raise UserError if ONNX Runtime would read other files because of ``content``, as no export by mixdet wants.

    A file of ONNX names them in entries ``location`` of its tensors, or in nodes ``EPContext``; without these words it
    has neither. ONNX Runtime's own format, which it knows by its mark, is not ONNX.
    """
    others = content[4:8] == b'ORTM' or b'EPContext' in content
    if not others and b'location' in content:  # it may be the name of a class
        try:
            import onnx
        except ImportError as error:
            raise UserError(f'{path} may refer to other files, which only onnx can tell: pip install onnx') from error
        others = any(part.external_data for part in _messages(onnx.load_model_from_string(content), onnx.TensorProto))
    if others:
        raise UserError(f'{path} refers to other files, or is not in the format ONNX; export it into one file')


def _messages(message: Any, kind: type) -> Iterator[Any]:
    """All messages of a ``kind`` in a protocol buffer."""
    if isinstance(message, kind):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if hasattr(value, '__len__') else (value,):
                yield from _messages(part, kind)


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
        trusted: run it even if it is a program.

    Attributes:
        dataset_meta: with the names of its ``classes``.

    Raises:
        UserError: if the file cannot be loaded or has no NMS.
    """

    def __init__(self, file: str, data_preprocessor: Optional[dict] = None, trusted: bool = False) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.run, self.metadata = load_exported(file, trusted)
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
