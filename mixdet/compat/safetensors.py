"""Checkpoints in the safetensors format.

Defect answered: mmengine 0.10.7's ``CheckpointLoader`` has no loader for them, so ``load_from`` and
``init_cfg=dict(type='Pretrained')`` fail with such a file. Can go when it has one.
"""

import json
from pathlib import Path
from typing import Any, Union

SUFFIX = '.safetensors'


def read_safetensors(path: Union[str, Path], map_location: str = 'cpu') -> dict:
    """The file's tensors as ``state_dict`` and its metadata as ``meta``.

    Metadata are strings; those that hold an object or a list in JSON, as ``tools/convert_weights.py`` writes them, are
    decoded.

    Such a file cannot hold code.

    Raises:
        ImportError: if the package safetensors is not installed.
        FileNotFoundError, safetensors.SafetensorError: from that package.
    """
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ImportError(f'{path} needs safetensors, which is not installed: pip install safetensors') from error
    with safe_open(str(path), 'pt', device=str(map_location or 'cpu')) as file:
        names = file.keys()
        return dict(
            state_dict={name: file.get_tensor(name) for name in names},
            meta={name: _decoded(text) for name, text in (file.metadata() or {}).items()},
        )


def _decoded(text: str) -> Any:
    if not text.startswith(('{', '[')):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def install() -> None:
    """Register the loader with MMEngine."""
    from mmengine.runner.checkpoint import CheckpointLoader

    CheckpointLoader.register_scheme(rf'.*\{SUFFIX}$', read_safetensors, force=True)
