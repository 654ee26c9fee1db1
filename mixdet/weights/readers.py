"""Reading weights of TensorFlow, PyTorch and timm as arrays by name."""

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Union

import numpy as np
import torch
from torch import Tensor, nn

from mixdet.compat.safetensors import SUFFIX as SAFETENSORS
from mixdet.engine.checkpoint import check_size, read_checkpoint
from mixdet.errors import UserError, first_line
from mixdet.weights.graph import read_frozen_graph

TIMM = 'timm:'
MOVING_AVERAGE = '/ExponentialMovingAverage'  # of a TensorFlow variable; evaluation and export used it
OF_TRAINING = ('/RMSProp', '/RMSProp_1', '/Momentum', '/Adam', '/Adam_1')
# where training scripts keep the weights in a checkpoint; averaged ones first, as these are evaluated
ENTRIES = (
    'state_dict_ema',
    'ema_state_dict',
    'model_ema',
    'ema',
    'state_dict',
    'model_state_dict',
    'model_state',
    'model',
    'net',
    'weights',
    'params',
)
# what wrappers (data parallel, torch.compile, Lightning, averaging) put before all names
WRAPPERS = ('module.', '_orig_mod.', 'model.', 'net.', 'network.', 'backbone.', 'encoder.')
COUNT_OF_AVERAGES = 'n_averaged'  # of torch's AveragedModel


class Weights(NamedTuple):
    """The weights of one source.

    Attributes:
        name: name of the source.
        sha256: hash of its content.
        tensors: arrays by name.
        entry: which of the entries of a PyTorch checkpoint they are, '' if it holds weights only.
    """

    name: str
    sha256: str
    tensors: dict[str, np.ndarray]
    entry: str = ''


def read_weights(source: Union[str, Path, nn.Module]) -> Weights:
    """The tensors of ``source``, read without executing anything in it.

    Args:
        source: a file of NumPy (.npz), PyTorch (.pth, .pt, .pth.tar, .ckpt, .bin) or safetensors; a frozen TensorFlow
            graph (.pb); a TensorFlow checkpoint, by its prefix or .index file, if TensorFlow is installed;
            ``timm:NAME`` for a pretrained model that timm downloads; or a module.

    Raises:
        UserError: if it cannot be read.
    """
    if isinstance(source, nn.Module):
        return _from_module(type(source).__name__, source)
    if str(source).startswith(TIMM):
        return _from_module(str(source), _timm_model(str(source)[len(TIMM) :]))
    path = Path(source)
    index = path if path.suffix == '.index' else Path(f'{path}.index')
    if index.is_file():
        files = sorted(path.parent.glob(f'{index.stem}.data-*'))
        return Weights(index.stem, _digest(index, *files), _read_tensorflow_checkpoint(index.with_suffix('')))
    if not path.is_file():
        raise UserError(f'{path} does not exist; check the path')
    suffix = path.suffix.lower()
    if suffix in READERS:
        return Weights(path.name, _digest(path), READERS[suffix](path))
    if suffix in CHECKPOINTS:
        entry, state = _weights_of(read_checkpoint(path), path)
        return Weights(path.name, _digest(path), _arrays(state), entry)
    raise UserError(f'{path}: unknown file type, must be one of {", ".join((*READERS, *CHECKPOINTS))}')


def _read_numpy(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open('rb') as file:  # np.load leaves a broken file open
            if zipfile.is_zipfile(file):
                check_size(path, sum(member.file_size for member in zipfile.ZipFile(file).infolist()))
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError('it holds a single array without a name')
            with archive:
                return dict(archive)
    except UserError:
        raise
    except Exception as error:  # of NumPy, of each compression, of memory for what a header claims
        raise UserError(f'{path} is not a NumPy archive of plain arrays: {first_line(error)}') from error


def _weights_of(checkpoint: dict, path: Path) -> tuple[str, Mapping[str, Tensor]]:
    """The entry of ``checkpoint`` that holds the weights ('' if all of it does), and these by their own names."""
    entry = next((name for name in ENTRIES if _holds_weights(checkpoint.get(name))), '')
    state = checkpoint[entry] if entry else checkpoint
    if not _holds_weights(state):
        own = checkpoint.get('state_dict', {})
        if not isinstance(own, Mapping):
            raise UserError(f'{path}: state_dict is a {type(own).__name__}, not a dict of weights')
        kinds = ', '.join(f'{name} ({type(value).__name__})' for name, value in list(checkpoint.items())[:6])
        raise UserError(f'{path} holds no weights by name, but {kinds or "nothing"}; give a file with a state_dict')
    names = {name: name.replace('_orig_mod.', '') for name in state if name != COUNT_OF_AVERAGES}
    while prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in names.values())), None):
        names = {name: short.removeprefix(prefix) for name, short in names.items()}
    return entry, {short: state[name] for name, short in names.items()}


def _holds_weights(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(entry, Tensor) for entry in value.values())


def _read_tensorflow_checkpoint(prefix: Path) -> dict[str, np.ndarray]:
    """The model's variables in a TensorFlow checkpoint, as moving averages where the checkpoint has them."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(
            f'{prefix} is a TensorFlow checkpoint, which only TensorFlow can read: pip install tensorflow-cpu, or give '
            'a frozen graph (.pb)'
        ) from error
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        names = list(reader.get_variable_to_shape_map())
        averaged = {name.removesuffix(MOVING_AVERAGE) for name in names if name.endswith(MOVING_AVERAGE)}
        return {
            name: reader.get_tensor(name + MOVING_AVERAGE if name in averaged else name)
            for name in names
            if name != 'global_step' and not name.endswith((MOVING_AVERAGE, *OF_TRAINING))
        }
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise UserError(f'{prefix} cannot be read as a TensorFlow checkpoint: {first_line(error)}') from error


READERS: Mapping[str, Callable[[Path], dict[str, np.ndarray]]] = {'.npz': _read_numpy, '.pb': read_frozen_graph}
CHECKPOINTS = ('.pth', '.pt', '.tar', '.ckpt', '.bin', SAFETENSORS)  # of PyTorch; .tar is that of .pth.tar


def _timm_model(name: str) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        # timm needs torchvision, and torchvision the torch that it was built for
        missing = (error.name or 'timm').partition('.')[0]
        problem = 'timm is not installed' if missing == 'timm' else f'timm needs {missing}, which is not installed'
        raise UserError(f'{TIMM}{name}: {problem} ({first_line(error)}): pip install {missing}') from error
    except Exception as error:  # a torchvision that was built for another torch fails in its own ways
        raise UserError(f'{TIMM}{name}: timm cannot be imported: {first_line(error)}') from error
    try:
        return timm.create_model(name, pretrained=True)
    except Exception as error:  # unknown model, no network, no weights: timm and its hub can raise anything
        raise UserError(f'timm cannot create {name}: {type(error).__name__}: {error}') from error


def _from_module(name: str, model: nn.Module) -> Weights:
    tensors = _arrays(model.state_dict())
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode() + np.ascontiguousarray(tensors[key]).tobytes())
    return Weights(name, digest.hexdigest(), tensors)


def _arrays(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """As arrays; NumPy has no bfloat16, and what is narrower than float32 becomes float32."""
    arrays = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            value = value.detach().cpu()
            narrow = value.is_floating_point() and value.dtype not in (torch.float32, torch.float64)
            arrays[name] = (value.float() if narrow else value).numpy()
    return arrays


def _digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
