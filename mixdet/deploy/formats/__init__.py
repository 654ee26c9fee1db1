"""Which formats of exported files are there? The table of them; each is one module. Uses ``deploy.exportable``.

A new format is a module here with a ``Format``, its row in the table, an extra in setup.py and its test file.
"""

from pathlib import Path
from typing import Optional, Union

from mixdet.deploy.formats import (
    coreml,
    executorch,
    ncnn,
    onnx,
    openvino,
    tflite,
    torch_export,
    torchscript,
    web,
)
from mixdet.deploy.formats.base import Format

FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        *(onnx.FORMAT, openvino.FORMAT, ncnn.FORMAT, tflite.FORMAT, executorch.FORMAT, coreml.FORMAT),
        *(torchscript.FORMAT, torch_export.FORMAT, web.FORMAT),
    )
}


def format_of(path: Union[str, Path]) -> Optional[Format]:
    """The format that the suffix of ``path`` stands for; None for other suffixes."""
    return next((row for row in FORMATS.values() if Path(path).suffix == row.suffix), None)


def suffixes() -> str:
    """The suffixes of all formats, as messages list them."""
    return ', '.join(row.suffix for row in FORMATS.values())
