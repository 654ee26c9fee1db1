"""Static int8 quantisation of an exported ONNX file for ONNX Runtime."""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Optional

import numpy as np
import torch

from mixdet.deploy.inference import Detector
from mixdet.engine.atomic import atomic_path
from mixdet.errors import UserError

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


def quantize(path: Path, images: Sequence[np.ndarray], detector: Detector) -> None:
    """Quantise the convolutions of the ONNX file ``path`` to 8 bits in place, weights per channel.

    Args:
        path: file from ``export``.
        images: images to calibrate activations on, (H, W, 3) uint8 BGR; about a hundred typical ones suffice.
        detector: the detector it was exported from, for its preprocessing.

    Raises:
        UserError: if there are no images, or onnx or onnxruntime is missing.
    """
    if not images:
        raise UserError('--int8: the folder has no image to calibrate on')
    try:
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise UserError(f"--int8: {error}; pip install -e '.[onnx]'") from error
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    with TemporaryDirectory() as folder, torch.no_grad(), _quiet():
        prepared, quantized = Path(folder, 'prepared.onnx'), Path(folder, 'quantized.onnx')
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(quantized),
            _CalibrationReader(dict(image=detector.preprocess([image]).numpy()) for image in images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        model = onnx.load(quantized)
    onnx.helper.set_model_props(model, properties)
    with atomic_path(path) as partial:
        onnx.save(model, partial)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence ONNX Runtime's output and its advice to prepare the file first, which was done."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
