"""Reading weights of TensorFlow, PyTorch and timm as arrays by name."""

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Union

import numpy as np
from torch import Tensor, nn

from mixdet.compat.safetensors import SUFFIX as SAFETENSORS
from mixdet.engine.checkpoint import read_checkpoint
from mixdet.errors import UserError, first_line

TIMM = 'timm:'
MOVING_AVERAGE = '/ExponentialMovingAverage'  # of a TensorFlow variable; evaluation and export used it
OF_TRAINING = ('/RMSProp', '/RMSProp_1', '/Momentum', '/Adam', '/Adam_1')


class Weights(NamedTuple):
    """The weights of one source.

    Attributes:
        name: name of the source.
        sha256: hash of its content.
        tensors: arrays by name.
    """

    name: str
    sha256: str
    tensors: dict[str, np.ndarray]


def read_weights(source: Union[str, Path, nn.Module]) -> Weights:
    """The tensors of ``source``, read without executing anything in it.

    Args:
        source: a file of NumPy (.npz), PyTorch (.pth, .pt) or safetensors; a frozen TensorFlow graph (.pb); a
            TensorFlow checkpoint, by its prefix or .index file, if TensorFlow is installed; ``timm:NAME`` for a
            pretrained model that timm downloads; or a module.

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
    if path.suffix not in READERS:
        raise UserError(f'{path}: unknown file type, must be one of {", ".join(READERS)}')
    return Weights(path.name, _digest(path), READERS[path.suffix](path))


def _read_numpy(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open('rb') as file:  # np.load leaves a broken file open
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError('it holds a single array without a name')
            with archive:
                return dict(archive)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f'{path} is not a NumPy archive of plain arrays: {error}') from error


def _read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    checkpoint = read_checkpoint(path)
    state = checkpoint.get('state_dict', checkpoint)
    if not isinstance(state, Mapping):
        raise UserError(f'{path}: state_dict is a {type(state).__name__}, not a dict of weights')
    return _arrays(state)


def _read_frozen_graph(path: Path) -> dict[str, np.ndarray]:
    """The variables of a frozen graph: the constants that are read by an Identity named ``<name>/...``."""
    try:
        from tensorboard.compat.proto.graph_pb2 import GraphDef
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError as error:
        raise UserError(f'{path}: reading a TensorFlow graph needs tensorboard: pip install tensorboard') from error
    graph = GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError; its backends differ in the class
        raise UserError(f'{path} is not a frozen TensorFlow graph, or is truncated: {error}') from error
    read = {name for node in graph.node if node.op == 'Identity' for name in node.input if f'{name}/' in node.name}
    variables = [node for node in graph.node if node.op == 'Const' and node.name in read]
    if not variables:
        raise UserError(f'{path} is not a frozen TensorFlow graph: none of its {len(graph.node)} nodes is a variable')
    try:
        return {node.name: make_ndarray(node.attr['value'].tensor) for node in variables}
    except (ValueError, TypeError) as error:
        raise UserError(f'{path}: a constant of the graph is corrupt: {error}') from error


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


READERS: Mapping[str, Callable[[Path], dict[str, np.ndarray]]] = {
    '.npz': _read_numpy,
    '.pb': _read_frozen_graph,
    '.pth': _read_checkpoint,
    '.pt': _read_checkpoint,
    SAFETENSORS: _read_checkpoint,
}


def _timm_model(name: str) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise UserError(f'{TIMM}{name}: timm is not installed ({error}): pip install timm') from error
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
    return {name: value.detach().cpu().numpy() for name, value in state.items() if isinstance(value, Tensor)}


def _digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
