"""Reading checkpoints and checking them: is the file intact, and does it fit the model?"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

import torch
from torch import nn

from mixdet.compat.checkpoints import refusal, weights_only
from mixdet.compat.safetensors import SUFFIX as SAFETENSORS
from mixdet.compat.safetensors import read_safetensors
from mixdet.engine.expectations import warn_of_differences
from mixdet.errors import UserError, first_line

STATE = 'mixdet_state'  # key in a checkpoint of what mixdet adds, see mixdet.engine.resume
PARTS = ('state_dict', 'meta', 'message_hub', 'optimizer')  # of a checkpoint that can be resumed
COUNTER = 'num_batches_tracked'  # of batch norm; some files lack it, and inference does not use it
MAX_EXPANSION = 2  # of a file when it is unpacked: torch does not compress
MAX_BYTES, MAX_TIMES = 2**28, 4  # that a file's content may take in memory, at least and in times the file's size


def read_checkpoint(path: Union[str, Path]) -> dict:
    """The checkpoint in ``path``, loaded to the CPU.

    With torch 2.6 or later no code in it is executed, unless ``mixdet.compat.checkpoints.trust_files`` was called.

    Raises:
        UserError: if the file is missing, unreadable, damaged or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'checkpoint {path} does not exist; check the path')
    if path.suffix == SAFETENSORS:
        try:
            return read_safetensors(path)
        except Exception as error:  # ImportError, or safetensors' own error, which needs the package to be named
            raise UserError(f'checkpoint {path} cannot be read: {first_line(error)}') from error
    try:
        _check_sums(path)
        checkpoint = torch.load(path, map_location='cpu', weights_only=weights_only())
    except pickle.UnpicklingError as error:
        raise UserError(f'checkpoint {path} {refusal(error)}') from error
    except (
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        IndexError,
        MemoryError,
    ) as error:
        raise UserError(f'checkpoint {path} is corrupt or truncated: {first_line(error)}; use another one') from error
    if not isinstance(checkpoint, dict) or not all(isinstance(key, str) for key in checkpoint):
        raise UserError(f'checkpoint {path} holds a {type(checkpoint).__name__}, not a dict of weights by name')
    check_size(path, _bytes_of(checkpoint))
    return checkpoint


def check_size(path: Path, size: int) -> None:
    """Raise UserError if ``size``, the bytes that the content of a file takes, is far more than the file has."""
    if size > max(MAX_BYTES, MAX_TIMES * path.stat().st_size):
        found = path.stat().st_size
        raise UserError(f'{path} of {found} bytes would fill {size} bytes of memory, which no weights do; use another')


class _Unread:
    """Takes the place of every object in an outline: whatever is done to it, nothing happens."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Outline(pickle.Unpickler):
    """Reads the dicts, lists, texts and numbers of a pickle, and none of its classes: runs no code."""

    def find_class(self, module: str, name: str) -> type:
        return OrderedDict if (module, name) == ('collections', 'OrderedDict') else _Unread

    def persistent_load(self, pid: Any) -> _Unread:
        return _Unread()


def peek(path: Union[str, Path]) -> dict:
    """The checkpoint in ``path`` with nothing of its tensors, which are neither read nor checked: takes milliseconds.

    Raises:
        UserError: if the file is missing, unreadable, truncated or not a checkpoint.
    """
    path = Path(path)
    if not zipfile.is_zipfile(path):  # PyTorch's format of before 1.6, which has no outline, or no checkpoint
        return read_checkpoint(path)
    try:
        with zipfile.ZipFile(path) as file:
            _check_size(file, path)
            record = next(name for name in file.namelist() if name.endswith('/data.pkl'))
            outline = _Outline(io.BytesIO(file.read(record))).load()
    except Exception as error:  # what a damaged pickle can raise
        raise UserError(f'checkpoint {path} is corrupt or truncated: {first_line(error)}; use another one') from error
    if not isinstance(outline, dict):
        raise UserError(f'checkpoint {path} holds no dict of weights by name')
    return outline


def incomplete(checkpoint: dict) -> Optional[str]:
    """Why no training can be resumed from ``checkpoint``; None if all is there that one needs."""
    missing = [part for part in PARTS if not isinstance(checkpoint.get(part), dict)]
    if missing:
        return 'it holds weights only' if 'meta' in missing else f'it has no {" and no ".join(missing)}'
    unknown = [key for key in ('epoch', 'iter') if not isinstance(checkpoint['meta'].get(key), int)]
    return f'its meta has no {" and no ".join(unknown)}' if unknown else None


def check_fits(checkpoint: dict, model: nn.Module, path: Union[str, Path]) -> None:
    """Raise UserError unless ``checkpoint`` has every weight of ``model``, in its shape.

    MMEngine only warns, and evaluates the model with some of its weights at random. What imported weights expect and
    ``model`` does not have, such as a padding, is a warning.
    """
    reason = misfit(checkpoint.get('state_dict', checkpoint), model)
    if reason:
        raise UserError(f'checkpoint {path} is not of this model: {reason}; give the config it was trained with')
    warn_of_differences(checkpoint, model, path)


def misfit(weights: dict, model: nn.Module, exactly: bool = False) -> Optional[str]:
    """Why ``weights`` are not those of ``model``; None if each of its weights is there, in its shape.

    With ``exactly`` there must not be others.
    """
    weights, expected = _state(weights), _state(model.state_dict())
    missing = [key for key in expected if key not in weights and not key.endswith(COUNTER)]
    misshapen = [key for key in expected if key in weights and weights[key].shape != expected[key].shape]
    others = [key for key in weights if key not in expected and not key.endswith(COUNTER)]
    if missing:
        return f'{len(missing)} of its {len(expected)} weights are missing, such as {missing[0]}'
    if misshapen:
        key = misshapen[0]
        return (
            f'{len(misshapen)} weights have another shape, such as {key} {tuple(weights[key].shape)} for '
            f'{tuple(expected[key].shape)}'
        )
    if exactly and others:
        return f'{len(others)} weights are not in this model, such as {others[0]}'
    return None


def check_pretrained(model: nn.Module) -> None:
    """Raise UserError if an ``init_cfg`` of type Pretrained in ``model`` names a file of another network.

    A few missing weights may be intended, and MMEngine warns of them; a file without a single matching weight is a
    mistake. What imported weights expect and ``model`` does not have, such as a padding, is a warning.
    """
    for name, module in model.named_modules():
        for init in _as_list(getattr(module, 'init_cfg', None)):
            if init.get('type') == 'Pretrained' and '://' not in init['checkpoint']:
                checkpoint = read_checkpoint(init['checkpoint'])
                prefix = f'{init["prefix"]}.' if init.get('prefix') else ''
                check_related(checkpoint, module, init['checkpoint'], f'model.{name}.init_cfg', prefix)
                warn_of_differences(checkpoint, model, init['checkpoint'], name, prefix)


def check_related(checkpoint: dict, model: nn.Module, path: Union[str, Path], key: str, prefix: str = '') -> None:
    """Raise UserError if ``checkpoint`` has not a single weight of ``model``, by name (after ``prefix``) and shape.

    ``key`` is the setting that names the file, for the message.
    """
    weights = _state(checkpoint.get('state_dict', checkpoint))
    expected = {name: value.shape for name, value in _state(model.state_dict()).items() if not name.endswith(COUNTER)}
    if expected and not any(
        getattr(weights.get(prefix + name), 'shape', None) == shape for name, shape in expected.items()
    ):
        raise UserError(
            f'{key}: checkpoint {path} has none of the {len(expected)} weights of {type(model).__name__}, such as '
            f'{prefix}{next(iter(expected))}; give a checkpoint of this network'
        )


def _state(weights: dict) -> dict:
    """``weights`` without the prefix that DistributedDataParallel adds to their names."""
    return {name.removeprefix('module.'): value for name, value in weights.items()}


def _bytes_of(content: object) -> int:
    """The bytes of all tensors in ``content`` once they are copied: a view can repeat one number without end."""
    total, todo, seen = 0, [content], set()
    while todo:
        value = todo.pop()
        if isinstance(value, torch.Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            todo += value.values() if isinstance(value, dict) else value
    return total


def _as_list(value: Union[dict, Sequence[dict], None]) -> list[dict]:
    return [value] if isinstance(value, dict) else list(value or ())


def _check_sums(path: Path) -> None:
    """Raise BadZipFile if a zip file, such as torch writes, was changed since or would unpack to far more memory."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            _check_size(file, path)
            name = file.testzip()
            if name is not None:
                raise zipfile.BadZipFile(f'{name} has changed since it was written')


def _check_size(file: zipfile.ZipFile, path: Path) -> None:
    size = sum(record.file_size for record in file.infolist())
    if size > MAX_EXPANSION * path.stat().st_size:
        raise zipfile.BadZipFile(f'its {path.stat().st_size} bytes would unpack to {size}')
