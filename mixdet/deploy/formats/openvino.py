"""OpenVINO's intermediate representation: a folder with ``model.xml`` and ``model.bin``. NMS is outside.

OpenVINO computes in bfloat16 on CPUs that can unless it is told otherwise, with an error of a percent. Files are run in
float32 here; the environment variable MIXDET_OPENVINO_HINT=bf16 leaves them to the faster arithmetic.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixdet.deploy.formats.base import FP16, INPUT, INT8, OUTPUTS, PRECISIONS, Format, Job, Opened, Outputs
from mixdet.errors import UserError

MODEL, WEIGHTS = 'model.xml', 'model.bin'
HINT, HINTS = 'MIXDET_OPENVINO_HINT', ('f32', 'bf16', 'f16')
CONVOLUTIONS = ('Convolution', 'GroupConvolution')


def write(job: Job, path: Path) -> None:
    """Convert the traced network; fp16 stores weights in float16, for int8 NNCF quantises."""
    openvino = _package()
    program = torch.jit.trace(job.network, job.example, check_trace=False)
    with _unreported():
        model = openvino.convert_model(program, example_input=job.example, input=[tuple(job.example.shape)])
    model.inputs[0].get_tensor().set_names({INPUT})
    for output, name in zip(model.outputs, OUTPUTS[job.metadata.nms]):
        output.get_tensor().set_names({name})
    if job.precision == INT8:
        with _unreported():
            model = _quantize(model, list(job.calibration))
    openvino.save_model(model, path / MODEL, compress_to_fp16=job.precision == FP16)


def _package() -> Any:
    """OpenVINO's package, whose import alone would be reported."""
    with _unreported():
        import openvino
    return openvino


@contextlib.contextmanager
def _unreported() -> Iterator[None]:
    """Inside, OpenVINO and NNCF report their use to nobody, as in CI."""
    before = os.environ.get('CI')
    os.environ['CI'] = 'true'
    try:
        yield
    finally:
        if before is None:
            del os.environ['CI']
        else:
            os.environ['CI'] = before


def _quantize(model: Any, images: list[np.ndarray]) -> Any:
    """The model in 8 bits up to the last convolutions, as NNCF sees fit; what decodes their outputs stays in float."""
    import nncf

    return nncf.quantize(
        model,
        nncf.Dataset(images),
        preset=nncf.QuantizationPreset.MIXED,  # activations that are not symmetric, such as swish, have their own range
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=_after_convolutions(model)),
    )


def _after_convolutions(model: Any) -> list[str]:
    """Names of the operations between the last convolutions and the outputs."""
    names: dict[str, None] = {}
    nodes = [result.input_value(0).get_node() for result in model.get_results()]
    while nodes:
        node = nodes.pop()
        name = node.get_friendly_name()
        if name in names or node.get_type_name() in ('Constant', 'Parameter', *CONVOLUTIONS):
            continue
        names[name] = None
        nodes += [value.get_node() for value in node.input_values()]
    return list(names)


def open_file(path: Path, threads: int) -> Opened:
    """The model, compiled for the CPU. Only the two files are read, as bytes."""
    openvino = _package()
    hint = os.environ.get(HINT, HINTS[0])
    if hint not in HINTS:
        raise UserError(f'{HINT}={hint}: must be one of {", ".join(HINTS)}')
    core = openvino.Core()
    text, weights = (path / MODEL).read_bytes(), (path / WEIGHTS).read_bytes()
    model = core.read_model(text, weights)
    options = {'INFERENCE_PRECISION_HINT': hint, 'INFERENCE_NUM_THREADS': threads, 'PERFORMANCE_HINT': 'LATENCY'}
    return Opened(_runner(core.compile_model(model, 'CPU', options)), None)


def _runner(compiled: Any) -> Callable[[np.ndarray], Outputs]:
    request = compiled.create_infer_request()

    def run(images: np.ndarray) -> Outputs:
        results = request.infer({0: images})
        return tuple(np.array(results[output]) for output in compiled.outputs)

    return run


FORMAT = Format(
    name='openvino',
    suffix='.openvino',
    write=write,
    open_file=open_file,
    runtime='openvino',
    extra='openvino',
    packages=('openvino',),
    precisions=PRECISIONS,
    is_folder=True,
)
