"""Frozen TensorFlow graphs: the variables in them, also where an optimizer of graphs has rewritten them."""

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np

from mixdet.engine.checkpoint import check_size
from mixdet.errors import UserError

CONVOLUTIONS = {'Conv2D': 'weights', 'DepthwiseConv2dNative': 'depthwise_weights'}
BATCH_NORMS = ('FusedBatchNorm', 'FusedBatchNormV2', 'FusedBatchNormV3')
PARTS = ('gamma', 'beta', 'moving_mean', 'moving_variance')  # of a batch-norm, in the order of its inputs
ADDITIONS = ('BiasAdd', 'Add', 'AddV2')
READS = ('/read', '/Read/ReadVariableOp', '/ReadVariableOp')  # what is behind a variable's name where it is read
EPS = 1e-3  # of TF-slim's batch-norms


def read_frozen_graph(path: Path) -> dict[str, np.ndarray]:
    """The variables of a frozen graph by name.

    Where batch-norms have been folded or their constants merged, the variables of one that computes the same take
    their place: mean 0, variance 1, and the scale and shift that are left.

    Raises:
        UserError: if tensorboard is missing, the file is no frozen graph, or its constants, of which each can repeat
            one number, are far larger than it is.
    """
    try:
        from tensorboard.compat.proto.graph_pb2 import GraphDef
    except ImportError as error:
        raise UserError(f'{path}: reading a TensorFlow graph needs tensorboard: pip install tensorboard') from error
    graph = GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError; its backends differ in the class
        raise UserError(f'{path} is not a frozen TensorFlow graph, or is truncated: {error}') from error
    try:
        check_size(path, max(map(_size, graph.node), default=0))
        variables: dict[str, np.ndarray] = {}
        size = 0
        for name, value in _Graph(graph).variables():
            variables.setdefault(name, value)
            size += value.nbytes
            check_size(path, size)
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(f'{path}: a constant of the graph is corrupt: {error}') from error
    if not variables:
        raise UserError(f'{path} is not a frozen TensorFlow graph: none of its {len(graph.node)} nodes is a variable')
    return variables


class _Graph:
    """The nodes of a graph by name, with the nodes that read each.

    Args:
        graph: a GraphDef of tensorboard's protocol buffers.
    """

    def __init__(self, graph: Any) -> None:
        self.nodes = {node.name: node for node in graph.node}
        self.readers = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[_node_name(name)].append(node)

    def variables(self) -> Iterator[tuple[str, np.ndarray]]:
        """The constants that are read by an Identity below their name, then those of the convolutions."""
        for name, node in self.nodes.items():
            if node.op == 'Const' and any(
                reader.op == 'Identity' and reader.name.startswith(f'{name}/') for reader in self.readers[name]
            ):
                yield name, _array(node)
        for node in self.nodes.values():
            if node.op in CONVOLUTIONS:
                yield from self._layer(node)

    def _layer(self, conv: Any) -> Iterator[tuple[str, np.ndarray]]:
        """Variables of a convolution and of the batch-norm or bias behind it."""
        weights = self._constant(conv.input[1])
        if weights is None:
            return
        kind = CONVOLUTIONS[conv.op]
        name = weights.name
        for suffix in READS:
            name = name.removesuffix(suffix)
        scope = name.removesuffix(f'/{kind}') if name.endswith(f'/{kind}') else _scope(conv.name)
        yield f'{scope}/{kind}', _array(weights)
        following = self._following(conv)
        if following is None:
            return
        if following.op in BATCH_NORMS:
            constants = [self._constant(entry) for entry in following.input[1:5]]
            parts = {part: _array(node) for part, node in zip(PARTS, constants) if node is not None}
            if len(parts) == len(PARTS) and all(value.size for value in parts.values()):
                yield from ((f'{scope}/BatchNorm/{part}', value) for part, value in parts.items())
            return
        scale: Any = 1.0
        if following.op == 'Mul':  # what is left of a batch-norm whose constants were merged
            scale = self._operand(following)
            following = self._following(following)
        shift = None if following is None or following.op not in ADDITIONS else self._operand(following)
        if shift is None or scale is None:
            return
        if scope.endswith('Predictor'):  # their convolutions have biases and no batch-norm
            yield f'{scope}/biases', shift
            return
        ones = np.ones_like(shift)
        values = [ones * scale * np.float32(np.sqrt(1 + EPS)), shift, np.zeros_like(shift), ones]
        yield from ((f'{scope}/BatchNorm/{part}', value) for part, value in zip(PARTS, values))

    def _following(self, node: Any) -> Optional[Any]:
        """The node that reads the output of ``node``, if there is just one."""
        readers = [reader for reader in self.readers[node.name] if reader.op != 'Shape']
        return readers[0] if len(readers) == 1 else None

    def _operand(self, node: Any) -> Optional[np.ndarray]:
        """The constant vector that ``node`` adds or multiplies with, if it does."""
        for name in node.input:
            constant = self._constant(name)
            value = None if constant is None else _array(constant)
            if value is not None and value.size == max(value.shape, default=0) and value.dtype.kind == 'f':
                return value.reshape(-1)
        return None

    def _constant(self, name: str) -> Optional[Any]:
        """The Const that an input is, or that it reads through nodes that change no value."""
        node = self.nodes.get(_node_name(name))
        seen = set()
        while node is not None and node.op in ('Identity', 'Cast') and node.name not in seen:
            seen.add(node.name)
            node = self.nodes.get(_node_name(node.input[0]))
        return node if node is not None and node.op == 'Const' else None


def _node_name(name: str) -> str:
    """The name of the node whose output or completion an input names."""
    return name.removeprefix('^').partition(':')[0]


def _scope(name: str) -> str:
    """The variables' scope of an operation, in whose name TF-slim repeats that of the network."""
    parts = name.split('/')[:-1]
    return '/'.join(part for i, part in enumerate(parts) if i == 0 or part != parts[i - 1])


def _size(node: Any) -> int:
    """The bytes, at 8 a number, of a Const; 0 of other nodes."""
    if node.op != 'Const':
        return 0
    return 8 * math.prod(dim.size for dim in node.attr['value'].tensor.tensor_shape.dim)


def _array(node: Any) -> np.ndarray:
    from tensorboard.util.tensor_util import make_ndarray

    return make_ndarray(node.attr['value'].tensor)
