import os

import numpy as np
import pytest
import torch

from mixdet.errors import UserError
from mixdet.weights.readers import read_weights


@pytest.fixture
def graph(tmp_path):
    """A frozen graph as TensorFlow writes it: two variables of either kind, a constant that is none, an operation."""
    protos = pytest.importorskip('tensorboard.compat.proto.graph_pb2')
    make_tensor_proto = pytest.importorskip('tensorboard.util.tensor_util').make_tensor_proto
    graph = protos.GraphDef()

    def add(name, op, value=None, inputs=()):
        node = graph.node.add(name=name, op=op, input=inputs)
        if value is not None:
            node.attr['value'].tensor.CopyFrom(make_tensor_proto(value))

    add('a/weights', 'Const', np.arange(6, dtype=np.float32).reshape(1, 2, 3))
    add('a/weights/read', 'Identity', inputs=['a/weights'])
    add('b', 'Const', np.float32([1, 2]))
    add('b/Read/ReadVariableOp', 'Identity', inputs=['b'])
    add('shape', 'Const', np.int32([1, 300]))
    add('out', 'Reshape', inputs=['a/weights/read', 'shape'])
    path = tmp_path / 'frozen.pb'
    path.write_bytes(graph.SerializeToString())
    return path


def test_variables_of_a_frozen_graph(graph):
    weights = read_weights(graph)
    assert sorted(weights.tensors) == ['a/weights', 'b']
    np.testing.assert_array_equal(weights.tensors['a/weights'], np.arange(6).reshape(1, 2, 3))
    np.testing.assert_array_equal(weights.tensors['b'], [1, 2])
    assert weights.name == 'frozen.pb' and len(weights.sha256) == 64


def test_broken_graphs(graph, tmp_path):
    (tmp_path / 'cut.pb').write_bytes(graph.read_bytes()[:60])
    (tmp_path / 'empty.pb').write_bytes(b'')
    (tmp_path / 'text.pb').write_bytes(b'graph { node }')
    for name in ('cut', 'empty', 'text'):
        with pytest.raises(UserError, match=f'{name}.pb is not a frozen TensorFlow graph'):
            read_weights(tmp_path / f'{name}.pb')


def test_every_cut_of_a_graph_is_an_error_or_has_whole_tensors(graph, tmp_path):
    whole, content = read_weights(graph).tensors, graph.read_bytes()
    for length in range(len(content)):
        (tmp_path / 'cut.pb').write_bytes(content[:length])
        try:
            tensors = read_weights(tmp_path / 'cut.pb').tensors
        except UserError:
            continue
        for name, value in tensors.items():
            np.testing.assert_array_equal(value, whole[name])


def test_tensorflow_checkpoint(tmp_path):
    tf = pytest.importorskip('tensorflow')
    average = tf.Variable([2.0], name='w/ExponentialMovingAverage')
    variables = {'w': tf.Variable([1.0]), 'w/ExponentialMovingAverage': average, 'w/RMSProp': tf.Variable([0.0])}
    tf.compat.v1.train.Saver({**variables, 'global_step': tf.Variable(3)}).save(None, str(tmp_path / 'model.ckpt'))
    for name in ('model.ckpt', 'model.ckpt.index'):
        assert {key: list(value) for key, value in read_weights(tmp_path / name).tensors.items()} == {'w': [2.0]}


def test_tensorflow_checkpoint_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'tensorflow', None)
    (tmp_path / 'model.ckpt.index').write_bytes(b'')
    with pytest.raises(UserError, match='model.ckpt is a TensorFlow checkpoint, which only TensorFlow can read'):
        read_weights(tmp_path / 'model.ckpt')


def test_live_module():
    weights = read_weights(torch.nn.Linear(2, 3))
    assert weights.name == 'Linear' and weights.tensors['weight'].shape == (3, 2)
    assert weights.sha256 != read_weights(torch.nn.Linear(2, 3)).sha256


def test_timm_that_cannot_be_had():
    with pytest.raises(UserError, match='timm cannot create no_such_net'):
        read_weights('timm:no_such_net')


class Attack:
    def __reduce__(self):
        return os.system, ('touch hacked',)


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': {'a': Attack()}}, 'attack.pth')
    np.savez('attack.npz', a=np.array([Attack()], dtype=object))
    for name in ('attack.pth', 'attack.npz'):
        with pytest.raises(UserError, match=name):
            read_weights(name)
    assert not (tmp_path / 'hacked').exists()
