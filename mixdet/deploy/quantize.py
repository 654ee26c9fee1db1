"""Static int8 quantisation of an exported ONNX file for ONNX Runtime."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Optional

import numpy as np
import torch

from mixdet.deploy.calibration import best_ranges
from mixdet.engine.atomic import atomic_path

# A Clip or ReLU quantised together with its convolution leaves all 256 levels to the values within its bounds.
# Decoding and NMS stay in float32.
QUANTIZED = ('Conv', 'Clip', 'Relu')


class _CalibrationReader:
    """ONNX Runtime's interface to the inputs that it calibrates on."""

    def __init__(self, inputs: Iterator[dict[str, np.ndarray]]) -> None:
        self._inputs = inputs

    def get_next(self) -> Optional[dict[str, np.ndarray]]:
        """The next inputs by name, or None after the last."""
        return next(self._inputs, None)


def quantize(path: Path, images: Iterable[np.ndarray]) -> None:
    """Quantise the convolutions of the ONNX file ``path`` to 8 bits in place, weights per channel.

    Those whose output is one pixel (squeeze-and-excitation, the last levels of a detector) stay in float: they take no
    time, and a scale for a whole channel deserves more than 256 levels. The ranges of the activations are those of
    :func:`mixdet.deploy.calibration.best_ranges`. If this fails, ``path`` is as before.

    Args:
        path: file from ``export``.
        images: normalised images (1, 3, H, W), float32 RGB, to calibrate activations on, which it goes through more
            than once; about a hundred typical ones suffice.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    def inputs() -> Iterator[dict[str, np.ndarray]]:
        return (dict(image=image) for image in images)

    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    with TemporaryDirectory() as folder, torch.no_grad():
        prepared, quantized = Path(folder, 'prepared.onnx'), Path(folder, 'quantized.onnx')
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        excluded = _of_one_pixel(graph)
        ranges = best_ranges(prepared, *_activations(graph, excluded), inputs)
        quantize_static(
            str(prepared),
            str(quantized),
            _CalibrationReader(islice(inputs(), 1)),  # for tensors without a range, which have no values
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_exclude=excluded,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=dict(
                TensorQuantOverrides={
                    name: [dict(rmin=np.float32(low), rmax=np.float32(high))] for name, (low, high) in ranges.items()
                }
            ),
        )
        model = onnx.load(quantized)
    onnx.helper.set_model_props(model, properties)
    with atomic_path(path) as partial:
        onnx.save(model, partial)


def _of_one_pixel(graph: Any) -> list[str]:
    """Names of the convolutions of an ONNX graph whose output has a height and width of 1 px."""
    shapes = {
        info.name: [size.dim_value for size in info.type.tensor_type.shape.dim]
        for info in (*graph.value_info, *graph.output)
    }
    return [node.name for node in graph.node if node.op_type == 'Conv' and shapes.get(node.output[0], [])[2:] == [1, 1]]


def _activations(graph: Any, excluded: Sequence[str]) -> tuple[list[str], set[str]]:
    """The tensors of an ONNX graph that are to be quantised, and which of them go into a sigmoid."""
    nodes = [node for node in graph.node if node.op_type in QUANTIZED and node.name not in excluded]
    tensors = dict.fromkeys(name for node in nodes for name in (node.input[0], node.output[0]))
    for tensor in graph.initializer:
        tensors.pop(tensor.name, None)
    swish = {node.input[0] for node in graph.node if node.op_type == 'Sigmoid'}
    return list(tensors), swish & set(tensors)
