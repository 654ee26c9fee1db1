"""ONNX, for ONNX Runtime and what else reads it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mixdet.deploy.exportable import NMS_ONNX, nms_mask_in_onnx, nms_mask_operator
from mixdet.deploy.formats.base import FP16, INPUT, INT8, OUTPUTS, PRECISIONS, Format, Job, Opened
from mixdet.deploy.quantize import quantize
from mixdet.errors import UserError

OPSET = 18


def write(job: Job, path: Path) -> None:
    """Export through PyTorch's exporter; for int8, quantise the result."""
    import onnx
    import onnxscript  # noqa: F401  (torch.onnx needs it)

    if job.precision == FP16:
        job.network.halve()
    batch = ({0: torch.export.Dim('batch', min=1)},) if job.dynamic_batch else None
    program: Any = torch.onnx.export(  # by its annotations it may return None, which it does without dynamo
        job.network,
        (job.example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=OUTPUTS[job.metadata.nms],
        dynamic_shapes=batch,
        custom_translation_table={nms_mask_operator(): nms_mask_in_onnx},
        verbose=False,
    )
    model = program.model_proto
    if batch and not model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise UserError(
            f'--dynamic-batch: PyTorch {torch.__version__} fixes the number of images; use a newer one, or leave it out'
        )
    properties = job.metadata.to_json()
    onnx.helper.set_model_props(
        model, {key: value if isinstance(value, str) else json.dumps(value) for key, value in properties.items()}
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)
    if job.precision == INT8:
        quantize(path, job.calibration)


def open_file(path: Path, threads: int) -> Opened:
    """A session of ONNX Runtime. Raises UserError if it would read other files."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    content = path.read_bytes()
    _check_whole(path, content)
    session = onnxruntime.InferenceSession(content, options, providers=onnxruntime.get_available_providers())
    properties = session.get_modelmeta().custom_metadata_map
    values = {key: _from_json(value) for key, value in properties.items()}
    return Opened(lambda images: tuple(session.run(None, {INPUT: images})), values)


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


FORMAT = Format(
    name='onnx',
    suffix='.onnx',
    write=write,
    open_file=open_file,
    runtime='onnxruntime',
    extra='onnx',
    packages=('onnx', 'onnxscript'),
    precisions=PRECISIONS,
    nms=NMS_ONNX,
    metadata_inside=True,
    dynamic_batch=True,
    minimum_torch='2.6',
)
