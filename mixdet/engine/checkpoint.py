"""Is this file a checkpoint, and one of this model?"""

import pickle
from pathlib import Path
from typing import Union

import torch
from torch import nn

from mixdet.compat.checkpoints import SAFE_LOADING
from mixdet.errors import UserError

COUNTER = 'num_batches_tracked'  # of batch-norm; not every file has it, and no prediction uses it


def read_checkpoint(path: Union[str, Path]) -> dict:
    """The checkpoint in ``path``, on the CPU and, with torch 2.5 or later, without executing anything from it.

    Raises:
        UserError: if the file is missing, not readable, not whole or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'checkpoint {path} does not exist; check the path')
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=SAFE_LOADING)
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if 'GLOBAL' in line or 'Unsupported' in line), '')
        raise UserError(
            f'checkpoint {path} is corrupt, or holds objects that are not plain weights and was not loaded. {reason}'
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f'checkpoint {path} is corrupt or truncated: {_first_line(error)}; use another one') from error
    if not isinstance(checkpoint, dict) or not all(isinstance(key, str) for key in checkpoint):
        raise UserError(f'checkpoint {path} holds a {type(checkpoint).__name__}, not a dict of weights')
    return checkpoint


def check_fits(checkpoint: dict, model: nn.Module, path: Union[str, Path]) -> None:
    """Raise UserError unless ``checkpoint`` has every weight of ``model``, in its shape.

    MMEngine only warns, and evaluates whatever the missing weights happened to be.
    """
    weights = {key.removeprefix('module.'): value for key, value in checkpoint.get('state_dict', checkpoint).items()}
    expected = {key.removeprefix('module.'): value for key, value in model.state_dict().items()}
    missing = [key for key in expected if key not in weights and not key.endswith(COUNTER)]
    misshapen = [key for key in expected if key in weights and weights[key].shape != expected[key].shape]
    if missing:
        raise UserError(
            f'checkpoint {path} is not of this model: {len(missing)} of its {len(expected)} weights are missing, '
            f'such as {missing[0]}; give the config it was trained with'
        )
    if misshapen:
        key = misshapen[0]
        raise UserError(
            f'checkpoint {path} is not of this model: {len(misshapen)} weights have another shape, such as {key} '
            f'{tuple(weights[key].shape)} for {tuple(expected[key].shape)}; give the config it was trained with'
        )


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
