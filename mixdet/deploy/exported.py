"""Running exported files: as a function on arrays, and as a detector in MMDetection's evaluation.

PyTorch's own formats are programs. A TorchScript file can open and write files; ``torch.export.load`` unpickles parts
of a file and computes the symbolic sizes in it with Python's ``eval``, so that to look through its pickles is not
enough. They are run only if the user trusts them. ONNX can only compute, as long as it names no other file.
"""

from pathlib import Path
from typing import Optional, Union

import torch
from mmdet.models import BaseDetector
from mmengine.structures import InstanceData
from torch import Tensor

from mixdet.compat.checkpoints import IF_TRUSTED, files_are_trusted
from mixdet.deploy.finish import finish
from mixdet.deploy.formats import FORMATS, format_of, suffixes
from mixdet.deploy.formats.base import Inference, Metadata, Outputs
from mixdet.deploy.formats.sidecar import read_sidecar
from mixdet.errors import UserError, first_line
from mixdet.registry import MODELS

SAFE = FORMATS['onnx']  # to exchange


def load_exported(
    path: Union[str, Path], trusted: bool = False, threads: Optional[int] = None
) -> tuple[Inference, Metadata]:
    """An exported file as a function from normalised images (N, 3, H, W), float32 RGB, to its outputs; its metadata.

    Args:
        path: the file, or the folder of the formats that are folders.
        trusted: run it even if it is a program, as ``trust_files`` allows for all files.
        threads: to run it on; by default as many as PyTorch uses.

    Raises:
        UserError: if the file does not exist, has another suffix or was not exported by mixdet, is a program and not
            trusted, its metadata are missing or those of another file, or a package is missing.
    """
    path = Path(path)
    row = format_of(path)
    if not path.exists():
        raise UserError(f'{path} does not exist; check the path')
    if row is None:
        raise UserError(f'{path}: an exported file must end in one of {suffixes()}')
    if path.is_dir() != row.is_folder:
        raise UserError(f'{path} is not a detector exported by tools/export.py: {_OF_OTHER_KIND[row.is_folder]}')
    if row.danger and not (trusted or files_are_trusted()):
        raise UserError(f'{path} {row.danger}, and was not run; use an {SAFE.suffix} file, or {IF_TRUSTED}')
    try:
        content = None if row.metadata_inside else read_sidecar(path)
        run, inside = row.open_file(path, threads or torch.get_num_threads())
        return run, Metadata.from_json(inside or content or {})
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f'{path} needs {row.runtime}, which is not installed: pip install {row.runtime}') from error
    except Exception as error:  # every runtime has its own kinds of errors
        raise UserError(f'{path} is not a detector exported by tools/export.py: {first_line(error)}') from error


_OF_OTHER_KIND = {True: 'it is a file, not a folder', False: 'it is a folder, not a file'}


@MODELS.register_module()
class ExportedDetector(BaseDetector):
    """An exported file as a detector of MMDetection, which ``tools/test.py`` can evaluate.

    NMS that is not in the file is done by ``finish``.

    Args:
        file: the exported file or folder.
        data_preprocessor: that of the config it was exported from.
        trusted: run it even if it is a program.
        threads: to run it on; by default as many as PyTorch uses.

    Attributes:
        dataset_meta: with the names of its ``classes``.

    Raises:
        UserError: if the file cannot be loaded, or has neither NMS nor the thresholds for it.
    """

    def __init__(
        self,
        file: str,
        data_preprocessor: Optional[dict] = None,
        trusted: bool = False,
        threads: Optional[int] = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.run, self.metadata = load_exported(file, trusted, threads)
        if not (self.metadata.nms or self.metadata.thresholds):
            raise UserError(f'{file} has neither NMS nor the thresholds for it; export it again, from test_cfg.nms')
        self.dataset_meta = dict(classes=self.metadata.classes)

    def detect(self, images: Tensor) -> list[Outputs]:
        """Boxes, scores and labels in normalised images (N, 3, H, W), one image at a time, in px of these."""
        found = []
        for image in images.cpu().numpy():
            outputs = tuple(output[0] for output in self.run(image[None]))
            if not self.metadata.nms:
                assert self.metadata.thresholds is not None
                boxes, scores = outputs
                outputs = finish(boxes, scores, self.metadata.input_size, self.metadata.thresholds)
            found.append(outputs)
        return found

    def predict(self, batch_inputs: Tensor, batch_data_samples: list, rescale: bool = True) -> list:
        """MMDetection's data samples with the detections in normalised images (N, 3, H, W).

        Raises UserError if the images have another size than the file was exported for.
        """
        height, width = self.metadata.input_size
        if tuple(batch_inputs.shape[-2:]) != (height, width):
            raise UserError(
                f'the file was exported for {height}x{width} px, but the images of the config have '
                f'{batch_inputs.shape[-2]}x{batch_inputs.shape[-1]}'
            )
        results = []
        for outputs, sample in zip(self.detect(batch_inputs), batch_data_samples):
            boxes, scores, labels = map(torch.from_numpy, outputs)
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
