"""Core ML: an .mlpackage for Apple's systems. It can be written anywhere, and runs on macOS, iOS and the like."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixdet.deploy.formats.base import FP32, INPUT, INT8, OUTPUTS, PRECISIONS, Format, Job, Opened, Outputs
from mixdet.errors import UserError

METADATA = 'mixdet'  # the user-defined entry that holds the metadata
WEIGHTS = '@model_path/weights/weight.bin'  # where Core ML Tools put all weights


def write(job: Job, path: Path) -> None:
    """Convert to an ML program; for int8, store the weights of its convolutions so, one scale for each channel.

    In half precision the network computes with 16 bits, but boxes and scores are decoded with 32: a coordinate with 11
    bits is up to a quarter of a pixel off.
    """
    import coremltools as ct
    from coremltools.optimize import coreml as optimize

    program = torch.export.export(job.network, (job.example,), strict=False).run_decompositions({})
    precision = ct.precision.FLOAT32 if job.precision == FP32 else ct.transform.FP16ComputePrecision(_is_of_network)
    model = ct.convert(
        program,
        convert_to='mlprogram',
        inputs=[ct.TensorType(name=INPUT, shape=tuple(job.example.shape), dtype=np.float32)],
        outputs=[ct.TensorType(name=name, dtype=np.float32) for name in OUTPUTS[False]],
        compute_precision=precision,
        minimum_deployment_target=ct.target.iOS16,
        skip_model_load=True,
    )
    if job.precision == INT8:
        scheme = optimize.OpLinearQuantizerConfig(mode='linear_symmetric', granularity='per_channel')
        model = optimize.linear_quantize_weights(model, optimize.OptimizationConfig(op_type_configs=dict(conv=scheme)))
    model.user_defined_metadata[METADATA] = json.dumps(job.metadata.to_json())
    model.save(str(path))


def _is_of_network(operation: Any) -> bool:
    """Whether an operation belongs to the network, where tensors have four dimensions, and not to the decoding."""
    return all(len(output.shape or ()) == 4 for output in operation.outputs)


def open_file(path: Path, threads: int) -> Opened:
    """The model, which Core ML runs on the processors of its choice.

    Elsewhere only its structure is checked. Raises UserError if it would read other files, ValueError if it has other
    inputs or outputs than ``write`` gives it.
    """
    import coremltools as ct

    here = sys.platform == 'darwin'
    spec = ct.utils.load_spec(str(path))
    files = {value.fileName for value in _messages(spec, 'BlobFileValue')}
    if not files <= {WEIGHTS} or any(part.is_symlink() for part in path.rglob('*')):
        raise UserError(f'{path} refers to other files; export it again')
    names = {entry.name for entry in (*spec.description.input, *spec.description.output)}
    if names != {INPUT, *OUTPUTS[False]} or not spec.HasField('mlProgram'):
        raise ValueError('it has other inputs or outputs')
    content = json.loads(spec.description.metadata.userDefined[METADATA])
    model = ct.models.MLModel(str(path)) if here else None

    def run(images: np.ndarray) -> Outputs:
        if model is None:
            raise UserError(f'{path} runs on macOS only')
        found = model.predict({INPUT: images})
        return tuple(found[name] for name in OUTPUTS[False])

    return Opened(run, content)


def _messages(message: Any, name: str) -> Iterator[Any]:
    """All messages of a type in a protocol buffer."""
    if message.DESCRIPTOR.name == name:
        yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            values = [value[key] for key in value]
        else:
            values = list(value) if hasattr(value, '__len__') else [value]
        for part in values:
            if hasattr(part, 'ListFields'):
                yield from _messages(part, name)


FORMAT = Format(
    name='coreml',
    suffix='.mlpackage',
    write=write,
    open_file=open_file,
    runtime='coremltools',
    extra='coreml',
    packages=('coremltools',),
    precisions=PRECISIONS,
    is_folder=True,
    metadata_inside=True,
    minimum_torch='2.6',
    platforms=('darwin',),
)
