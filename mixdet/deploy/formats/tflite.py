"""LiteRT, formerly TensorFlow Lite: one .tflite file for phones and small computers, through litert-torch."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from mixdet.deploy.calibration import ranges_of
from mixdet.deploy.formats.base import FP16, INT8, OUTPUTS, PRECISIONS, Format, Inference, Job, Opened, Outputs

SIGNATURE, SIGNATURE_INPUT = 'serving_default', 'args_0'  # litert-torch's
CONVOLUTIONS = ('CONV_2D', 'DEPTHWISE_CONV_2D')


def write(job: Job, path: Path) -> None:
    """Convert through litert-torch; then store weights in half precision, or quantise."""
    import litert_torch

    litert_torch.convert(job.network, (job.example,)).export(str(path))
    if job.precision == FP16:
        _halve_weights(path)
    elif job.precision == INT8:
        _quantize(path, job.calibration)


def _halve_weights(path: Path) -> None:
    """Store the weights of a file's convolutions in half precision; runtimes compute with them in float32 or less."""
    from ai_edge_quantizer import recipe_manager
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    recipe = recipe_manager.RecipeManager()
    for operation in CONVOLUTIONS:
        recipe.add_weight_only_config('.*', operation, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    _rewrite(path, recipe)


def _quantize(path: Path, images: Iterable[np.ndarray]) -> None:
    """Quantise a file's convolutions to 8 bits, weights per channel, as :func:`mixdet.deploy.quantize.quantize` does.

    Those whose output is one pixel stay in float, and so does everything else. The ranges of the activations are those
    of :func:`mixdet.deploy.calibration.ranges_of`.
    """
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import recipe_manager

    interpreter = Interpreter(model_content=path.read_bytes(), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    tensors = {detail['index']: detail for detail in interpreter.get_tensor_details()}
    operations = interpreter._get_ops_details()
    wide = [
        each
        for each in operations
        if each['op_name'] in CONVOLUTIONS and tuple(tensors[each['outputs'][0]]['shape'][1:3]) != (1, 1)
    ]
    indices = {tensors[index]['name']: index for each in wide for index in (each['inputs'][0], each['outputs'][0])}
    before_sigmoid = {index for each in operations if each['op_name'] == 'LOGISTIC' for index in each['inputs']}
    swish = {name for name, index in indices.items() if index in before_sigmoid}

    def values(names: Sequence[str]) -> Iterator[Sequence[np.ndarray]]:
        for each in images:
            interpreter.set_tensor(image['index'], each)
            interpreter.invoke()
            yield [interpreter.get_tensor(indices[name]) for name in names]

    ranges = ranges_of(list(indices), swish, values)
    recipe = recipe_manager.RecipeManager()
    scope = '|'.join(re.escape(tensors[each['outputs'][0]]['name']) for each in wide)
    for operation in CONVOLUTIONS:
        recipe.add_static_config(f'^({scope});?$', operation, activation_num_bits=8, weight_num_bits=8)
    _rewrite(path, recipe, next(iter(images)), ranges)


def _rewrite(
    path: Path,
    recipe: Any,
    image: Optional[np.ndarray] = None,
    ranges: Optional[dict[str, tuple[float, float]]] = None,
) -> None:
    """Quantise a file as a recipe says, with these ranges; an ``image`` gives those of what has none, as it is 0."""
    from ai_edge_quantizer import quantizer

    job, seen = quantizer.Quantizer(path.read_bytes(), recipe.get_quantization_recipe()), None
    if image is not None:
        seen = job.calibrate({SIGNATURE: [{SIGNATURE_INPUT: image}]}, num_threads=1)
        for name, bounds in (ranges or {}).items():
            for key, value in zip(('min', 'max'), bounds):
                seen[name][key] = np.full_like(seen[name][key], value)
    content = job.quantize(seen).quantized_model
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
    if names['inputs'] != [SIGNATURE_INPUT] or len(names['outputs']) != len(OUTPUTS[False]):
        raise ValueError('it has other inputs or outputs')
    run, outputs = interpreter.get_signature_runner(SIGNATURE), sorted(names['outputs'])

    def infer(images: np.ndarray) -> Outputs:
        found = run(**{SIGNATURE_INPUT: images})
        return tuple(found[name] for name in outputs)

    return infer


FORMAT = Format(
    name='tflite',
    suffix='.tflite',
    write=write,
    open_file=open_file,
    runtime='ai-edge-litert',
    extra='tflite',
    packages=('litert_torch', 'ai_edge_quantizer'),
    precisions=PRECISIONS,
    minimum_torch='2.6',
    mixconv='export-split',  # XNNPACK has no fast depthwise convolution beyond 5x5: half the time of one padded
)
