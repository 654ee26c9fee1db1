"""LiteRT, formerly TensorFlow Lite: one .tflite file for phones and small computers, through litert-torch."""

from pathlib import Path

import numpy as np

from mixdet.deploy.formats.base import FP16, INT8, OUTPUTS, PRECISIONS, Format, Inference, Job, Opened, Outputs
from mixdet.deploy.pt2e import quantized

SIGNATURE = 'serving_default'  # litert-torch's


def write(job: Job, path: Path) -> None:
    """Convert through litert-torch; for fp16, store the weights of the convolutions so, for int8, quantise before."""
    import litert_torch

    network = quantized(job.network, job.example, job.calibration) if job.precision == INT8 else job.network
    litert_torch.convert(network, (job.example,)).export(str(path))
    if job.precision == FP16:
        _halve_weights(path)


def _halve_weights(path: Path) -> None:
    """Store the weights of a file's convolutions in half precision; runtimes compute with them in float32 or less."""
    from ai_edge_quantizer import quantizer, recipe_manager
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName

    recipe = recipe_manager.RecipeManager()
    for operation in (TFLOperationName.CONV_2D, TFLOperationName.DEPTHWISE_CONV_2D):
        recipe.add_weight_only_config('.*', operation, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    content = quantizer.Quantizer(path.read_bytes(), recipe.get_quantization_recipe()).quantize().quantized_model
    assert content is not None  # it is, after quantize()
    path.write_bytes(content)


def open_file(path: Path, threads: int) -> Opened:
    """LiteRT's interpreter, with XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter

    # from memory: the interpreter would map a file, and end the process if that becomes shorter
    return Opened(_runner(Interpreter(model_content=path.read_bytes(), num_threads=threads)), None)


def _runner(interpreter: 'Interpreter') -> Inference:  # type: ignore[name-defined]  # noqa: F821
    """The interpreter as a function. Raises ValueError if its inputs and outputs are not those of ``write``."""
    interpreter.allocate_tensors()
    names = interpreter.get_signature_list().get(SIGNATURE, dict(inputs=[], outputs=[]))
    if len(names['inputs']) != 1 or len(names['outputs']) != len(OUTPUTS[False]):
        raise ValueError('it has other inputs or outputs')
    run, outputs = interpreter.get_signature_runner(SIGNATURE), sorted(names['outputs'])

    def infer(images: np.ndarray) -> Outputs:
        found = run(**{names['inputs'][0]: images})
        return tuple(found[name] for name in outputs)

    return infer


FORMAT = Format(
    name='tflite',
    suffix='.tflite',
    write=write,
    open=open_file,
    runtime='ai-edge-litert',
    extra='tflite',
    packages=('litert_torch', 'ai_edge_quantizer', 'torchao'),
    precisions=PRECISIONS,
    minimum_torch='2.6',
)
