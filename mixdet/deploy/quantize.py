"""Static int8 quantisation of an exported ONNX file for ONNX Runtime."""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from mixdet.deploy.inference import Detector
from mixdet.errors import UserError

# A Clip or ReLU that is quantised with its convolution spends all 256 steps on what passes it. Decoding and NMS stay
# float.
QUANTIZED = ('Conv', 'Clip', 'Relu')


class _Calibration:
    """The images that ONNX Runtime calibrates with, as the network takes them."""

    def __init__(self, detector: Detector, images: Sequence[np.ndarray]) -> None:
        self._inputs = self._prepare(detector, images)

    @staticmethod
    def _prepare(detector: Detector, images: Sequence[np.ndarray]) -> Iterator[dict]:
        for image in images:
            yield dict(image=detector.preprocess([image]).numpy())

    def get_next(self):
        """The next input by name, or None after the last."""
        return next(self._inputs, None)


def quantize(path: Path, images: Sequence[np.ndarray], detector: Detector) -> None:
    """Quantise the convolutions of the ONNX file ``path`` to 8 bits in place, weights by channel.

    Args:
        path: file from ``export``.
        images: what activations are calibrated on, (H, W, 3) uint8 BGR; a hundred of the kind to be expected do.
        detector: for its preprocessing.

    Raises:
        UserError: without images, or without onnxruntime.
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
    with TemporaryDirectory() as folder, torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        logging.disable(logging.WARNING)  # of its own advice on preparing, which is followed
        try:
            prepared = Path(folder, 'prepared.onnx')
            quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(path),
                _Calibration(detector, images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        finally:
            logging.disable(logging.NOTSET)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, path)
