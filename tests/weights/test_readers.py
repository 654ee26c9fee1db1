import argparse
import hashlib
import os
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import import_timm

from mixdet.errors import UserError
from mixdet.weights.readers import read_weights


@pytest.fixture
def graph(tmp_path):
    """A frozen graph as TensorFlow writes it: two variables, one of each kind, another constant and an operation."""
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
    add('out/copy', 'Identity', inputs=['out'])  # reads an operation, not a variable
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


def npz_that_claims(path, size):
    """An archive whose only member says that it unpacks to ``size`` bytes."""
    np.savez(path, a=np.zeros(1))
    content = path.read_bytes()
    member = content.index(b'PK\x01\x02')
    path.write_bytes(content[: member + 24] + size.to_bytes(4, 'little') + content[member + 28 :])


def npy_that_claims(path, elements):
    """An archive with an array of ``elements`` numbers by its header, and no data."""
    header = repr(dict(descr='<f8', fortran_order=False, shape=(elements,))).ljust(117) + '\n'
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('a.npy', b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header.encode())


def test_archives_that_fill_the_memory_are_refused(tmp_path):
    np.savez_compressed(tmp_path / 'zeros.npz', a=np.zeros(10**6))
    assert read_weights(tmp_path / 'zeros.npz').tensors['a'].shape == (10**6,)
    npz_that_claims(tmp_path / 'bomb.npz', 2**32 - 2)
    with pytest.raises(UserError, match=r'bomb.npz of \d+ bytes would fill 4294967294 bytes of memory'):
        read_weights(tmp_path / 'bomb.npz')
    for elements in (10**9, 10**15, 10**30):
        npy_that_claims(tmp_path / 'header.npz', elements)
        with pytest.raises(UserError, match='header.npz is not a NumPy archive of plain arrays'):
            read_weights(tmp_path / 'header.npz')


def test_tensorflow_checkpoint(tmp_path):
    tf = pytest.importorskip('tensorflow')
    average = tf.Variable([2.0], name='w/ExponentialMovingAverage')
    variables = {'w': tf.Variable([1.0]), 'w/ExponentialMovingAverage': average, 'w/RMSProp': tf.Variable([0.0])}
    tf.compat.v1.train.Saver({**variables, 'global_step': tf.Variable(3)}).save(None, str(tmp_path / 'model.ckpt'))
    for name in ('model.ckpt', 'model.ckpt.index'):
        assert {key: list(value) for key, value in read_weights(tmp_path / name).tensors.items()} == {'w': [2.0]}


class StubReader:
    """TensorFlow's reader of a checkpoint of one model with a moving average, and an optimizer."""

    VARIABLES = {
        'w': 1.0, 'w/ExponentialMovingAverage': 2.0, 'w/RMSProp': 0.0, 'w/RMSProp_1': 0.0, 'w/Momentum': 0.0,
        'w/Adam': 0.0, 'w/Adam_1': 0.0, 'b': 3.0, 'global_step': 4.0,
    }  # fmt: skip

    def get_variable_to_shape_map(self):
        return {name: [1] for name in self.VARIABLES}

    def get_tensor(self, name):
        return np.float32([self.VARIABLES[name]])


@pytest.fixture
def stub_tensorflow(monkeypatch):
    class OpError(Exception):
        pass

    def load_checkpoint(prefix):
        if 'bad' in prefix:
            raise OpError('DATA_LOSS: not an sstable\n(bad magic number)')
        return StubReader()

    stub = SimpleNamespace(
        train=SimpleNamespace(load_checkpoint=load_checkpoint), errors=SimpleNamespace(OpError=OpError)
    )
    monkeypatch.setitem(sys.modules, 'tensorflow', stub)


@pytest.mark.parametrize('name', ['model.ckpt', 'model.ckpt.index'])
def test_variables_of_a_tensorflow_checkpoint(tmp_path, stub_tensorflow, name):
    (tmp_path / 'model.ckpt.index').write_bytes(b'index')
    (tmp_path / 'model.ckpt.data-00000-of-00001').write_bytes(b'data')
    weights = read_weights(tmp_path / name)
    assert {key: list(value) for key, value in weights.tensors.items()} == {'w': [2.0], 'b': [3.0]}
    assert weights.name == 'model.ckpt' and weights.sha256 == hashlib.sha256(b'indexdata').hexdigest()


def test_a_broken_tensorflow_checkpoint_is_one_line(tmp_path, stub_tensorflow):
    (tmp_path / 'bad.ckpt.index').write_bytes(b'')
    with pytest.raises(
        UserError, match='bad.ckpt cannot be read as a TensorFlow checkpoint: DATA_LOSS: not an sst'
    ) as e:
        read_weights(tmp_path / 'bad.ckpt')
    assert '\n' not in str(e.value)


def test_tensorflow_checkpoint_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow', None)
    (tmp_path / 'model.ckpt.index').write_bytes(b'')
    with pytest.raises(UserError, match='model.ckpt is a TensorFlow checkpoint, which only TensorFlow can read'):
        read_weights(tmp_path / 'model.ckpt')


def test_a_graph_without_variables_and_a_corrupt_one(graph, tmp_path):
    protos = pytest.importorskip('tensorboard.compat.proto.graph_pb2')
    whole = protos.GraphDef.FromString(graph.read_bytes())
    nodes = [node for node in whole.node if node.op != 'Identity']
    (tmp_path / 'none.pb').write_bytes(protos.GraphDef(node=nodes).SerializeToString())
    with pytest.raises(UserError, match='none.pb is not a frozen TensorFlow graph: none of its 4 nodes is a variable'):
        read_weights(tmp_path / 'none.pb')
    whole.node[0].attr['value'].tensor.tensor_content = b'1234567'
    (tmp_path / 'corrupt.pb').write_bytes(whole.SerializeToString())
    with pytest.raises(UserError, match='corrupt.pb: a constant of the graph is corrupt'):
        read_weights(tmp_path / 'corrupt.pb')


def test_a_graph_needs_tensorboard(tmp_path, monkeypatch):
    (tmp_path / 'a.pb').write_bytes(b'')
    monkeypatch.setitem(sys.modules, 'tensorboard.compat.proto.graph_pb2', None)
    with pytest.raises(UserError, match='a.pb: reading a TensorFlow graph needs tensorboard: pip install tensorboard'):
        read_weights(tmp_path / 'a.pb')


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.safetensors'])
def test_checkpoints(tmp_path, suffix):
    path, state = tmp_path / f'a{suffix}', {'w': torch.arange(3.0), 'n': torch.tensor(2)}
    if suffix == '.safetensors':
        pytest.importorskip('safetensors.torch').save_file(state, path)
    else:
        torch.save({'state_dict': {**state, 'version': 1}, 'epoch': 3}, path)
    weights = read_weights(str(path))
    assert {name: value.tolist() for name, value in weights.tensors.items()} == {'w': [0, 1, 2], 'n': 2}
    assert weights.name == path.name and weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_bare_weights_and_what_is_no_dict_of_weights(tmp_path):
    torch.save({'w': torch.ones(2), 'epoch': 3}, tmp_path / 'bare.pth')
    assert {name: list(value) for name, value in read_weights(tmp_path / 'bare.pth').tensors.items()} == {'w': [1, 1]}
    torch.save({'state_dict': [torch.ones(2)]}, tmp_path / 'list.pth')
    with pytest.raises(UserError, match='list.pth: state_dict is a list, not a dict of weights'):
        read_weights(tmp_path / 'list.pth')
    np.save(tmp_path / 'a.npy', np.ones(2))
    (tmp_path / 'a.npy').rename(tmp_path / 'single.npz')
    with pytest.raises(UserError, match='single.npz is not a NumPy archive .* a single array'):
        read_weights(tmp_path / 'single.npz')


def test_a_module():
    model = torch.nn.Linear(2, 3)
    weights = read_weights(model)
    assert weights.name == 'Linear' and weights.tensors['weight'].tolist() == model.weight.tolist()
    same = torch.nn.Linear(2, 3)
    same.load_state_dict(model.state_dict())
    assert weights.sha256 == read_weights(same).sha256
    with torch.no_grad():
        same.bias[0] += 1
    assert weights.sha256 != read_weights(same).sha256
    assert weights.sha256 != read_weights(torch.nn.Sequential(model)).sha256  # other names


def test_pretrained_models_of_timm(monkeypatch):
    def create_model(name, pretrained):
        assert name == 'net' and pretrained
        return torch.nn.Linear(2, 3)

    monkeypatch.setitem(sys.modules, 'timm', SimpleNamespace(create_model=create_model))
    weights = read_weights('timm:net')
    assert weights.name == 'timm:net' and sorted(weights.tensors) == ['bias', 'weight']
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(UserError, match='timm:net: timm is not installed .* pip install timm'):
        read_weights('timm:net')


def test_unknown_models_of_timm():
    import_timm()
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


NAMES = ('features.0.0.weight', 'classifier.1.bias')


@pytest.mark.parametrize('prefix', ['', 'module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.', 'model.'])
@pytest.mark.parametrize('entry', ['', 'state_dict', 'model', 'model_ema', 'net'])
def test_entries_and_prefixes_of_training_scripts(tmp_path, prefix, entry):
    state = {prefix + name: torch.full((2,), float(i)) for i, name in enumerate(NAMES)}
    content = {entry: state, 'epoch': 3, 'optimizer': {'state': {}}} if entry else state
    path = tmp_path / 'checkpoint.pth.tar'
    torch.save(content, path)
    weights = read_weights(path)
    assert {name: list(value) for name, value in weights.tensors.items()} == {NAMES[0]: [0, 0], NAMES[1]: [1, 1]}
    assert weights.entry == entry


def test_averaged_weights_arguments_and_narrow_numbers(tmp_path):
    average = {f'module.{name}': torch.full((2,), 1.5, dtype=torch.bfloat16) for name in NAMES}
    average['n_averaged'] = torch.tensor(7)
    content = dict(
        model={name: torch.zeros(2) for name in NAMES},
        model_ema=average,
        args=argparse.Namespace(lr=0.1, output=Path('runs/1'), device=torch.device('cpu')),
    )
    torch.save(content, tmp_path / 'a.pth')
    weights = read_weights(tmp_path / 'a.pth')
    assert weights.entry == 'model_ema' and set(weights.tensors) == set(NAMES)
    for value in weights.tensors.values():
        assert value.dtype == np.float32 and list(value) == [1.5, 1.5]
    compiled = {'features._orig_mod.0.weight': torch.ones(1, dtype=torch.half), 'b': torch.ones(1, dtype=torch.double)}
    torch.save(compiled, tmp_path / 'b.ckpt')
    tensors = read_weights(tmp_path / 'b.ckpt').tensors
    assert {name: value.dtype for name, value in tensors.items()} == {
        'features.0.weight': np.float32,
        'b': np.float64,
    }


def test_a_checkpoint_without_weights_says_what_it_holds(tmp_path):
    torch.save(dict(epoch=3, optimizer={'lr': 1}), tmp_path / 'a.pt')
    with pytest.raises(UserError, match=r'a.pt holds no weights by name, but epoch \(int\), optimizer \(dict\)'):
        read_weights(tmp_path / 'a.pt')


@pytest.mark.parametrize(
    ('missing', 'message'),
    [
        ('timm', 'timm is not installed .*: pip install timm$'),
        ('torchvision', 'timm needs torchvision, which is not installed .*: pip install torchvision$'),
    ],
)
def test_the_package_that_is_missing_is_named(tmp_path, monkeypatch, missing, message):
    for name in [name for name in sys.modules if name.partition('.')[0] == 'timm']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    (tmp_path / 'timm').mkdir()
    (tmp_path / 'timm/__init__.py').write_text('import torchvision.ops\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=message):
        read_weights('timm:mixnet_s')
