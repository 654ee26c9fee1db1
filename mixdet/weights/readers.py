"""Files of weights as arrays by name."""

import zipfile
from pathlib import Path
from typing import Union

import numpy as np
import torch

from mixdet.engine.checkpoint import read_checkpoint
from mixdet.errors import UserError

SUFFIXES = ('.npz', '.pth', '.pt')


def read_weights(path: Union[str, Path]) -> dict[str, np.ndarray]:
    """The tensors in ``path`` by name: NumPy's .npz, or PyTorch's .pth or .pt (weights only).

    Nothing in the file is executed. Raises UserError if it cannot be read as that.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path} does not exist; check the path')
    if path.suffix not in SUFFIXES:
        raise UserError(f'{path}: unknown kind of file, must be one of {", ".join(SUFFIXES)}')
    if path.suffix == '.npz':
        try:
            with np.load(path, allow_pickle=False) as archive:
                return dict(archive)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f'{path} is no NumPy archive of plain arrays: {error}') from error
    checkpoint = read_checkpoint(path)
    weights = checkpoint.get('state_dict', checkpoint)
    return {name: value.numpy() for name, value in weights.items() if isinstance(value, torch.Tensor)}
