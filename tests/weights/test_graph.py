"""Frozen graphs as optimizers of graphs leave them; test_readers.py has those that TensorFlow writes."""

import numpy as np
import pytest

from mixdet.errors import UserError
from mixdet.weights.graph import read_frozen_graph

PARTS = ('gamma', 'beta', 'moving_mean', 'moving_variance')


class Builder:
    """A frozen graph in which each layer reads the one before."""

    def __init__(self):
        self.graph = pytest.importorskip('tensorboard.compat.proto.graph_pb2').GraphDef()
        self.make_proto = pytest.importorskip('tensorboard.util.tensor_util').make_tensor_proto
        self.last = self.add('image_tensor', 'Placeholder')

    def add(self, name, op, *inputs):
        self.graph.node.add(name=name, op=op, input=inputs)
        return name

    def constant(self, name, value, read=False):
        self.graph.node.add(name=name, op='Const').attr['value'].tensor.CopyFrom(self.make_proto(np.float32(value)))
        return self.add(f'{name}/read', 'Identity', name) if read else name

    def layer(self, name, op, *constants, first=True):
        self.last = self.add(name, op, *([self.last, *constants] if first else [*constants, self.last]))

    def read(self, tmp_path):
        path = tmp_path / 'frozen.pb'
        path.write_bytes(self.graph.SerializeToString())
        return read_frozen_graph(path)


def assert_norm(found, scope, *values):
    for part, value in zip(PARTS, values):
        np.testing.assert_allclose(found[f'{scope}/BatchNorm/{part}'], value, rtol=1e-6)


def test_constants_without_identities_folded_and_merged_batch_norms(tmp_path):
    builder = Builder()
    # as trained, but without the Identity nodes; the name of the folded constant of one keeps their suffix
    builder.layer('F/Conv/Conv2D', 'Conv2D', builder.constant('F/Conv/weights/read', np.ones((1, 1, 3, 2))))
    norm = [builder.constant(f'F/Conv/BatchNorm/{part}', [i, i + 0.5]) for i, part in enumerate(PARTS)]
    builder.layer('F/Conv/BatchNorm/FusedBatchNormV3', 'FusedBatchNormV3', *norm)
    builder.layer('F/Conv/Relu6', 'Relu6')
    # folded into a convolution, whose constant has a name of its own; TF-slim's operations repeat the network's name
    kernel = builder.constant('folded', np.full((3, 3, 2, 1), 2))
    builder.layer('F/V1/V1/Conv2d_1_depthwise/depthwise', 'DepthwiseConv2dNative', kernel)
    builder.layer('F/V1/V1/Conv2d_1_depthwise/add_fold', 'BiasAdd', builder.constant('offset', [7, 8]))
    # merged into one product and one sum
    builder.layer('F/C/Conv2D', 'Conv2D', builder.constant('F/C/weights', np.ones((1, 1, 2, 2)), read=True))
    builder.layer('F/C/BatchNorm/batchnorm/mul_1', 'Mul', builder.constant('m', [2, 3]), first=False)
    builder.layer('F/C/BatchNorm/batchnorm/add_1', 'AddV2', builder.constant('s', [[[[4, 5]]]]))
    # a predictor has a bias
    builder.layer('Box_0/ClassPredictor/Conv2D', 'Conv2D', builder.constant('k', np.ones((1, 1, 2, 2))))
    builder.layer('Box_0/ClassPredictor/BiasAdd', 'BiasAdd', builder.constant('b', [1, 2]))
    # around the network
    builder.layer('Postprocessor/scale', 'Mul', builder.constant('Postprocessor/scale/y', 0.5))
    found = builder.read(tmp_path)
    np.testing.assert_array_equal(found['F/V1/Conv2d_1_depthwise/depthwise_weights'], np.full((3, 3, 2, 1), 2))
    assert_norm(found, 'F/Conv', [0, 0.5], [1, 1.5], [2, 2.5], [3, 3.5])
    root = np.sqrt(1.001)
    assert_norm(found, 'F/V1/Conv2d_1_depthwise', [root, root], [7, 8], [0, 0], [1, 1])
    assert_norm(found, 'F/C', [2 * root, 3 * root], [4, 5], [0, 0], [1, 1])
    np.testing.assert_array_equal(found['Box_0/ClassPredictor/biases'], [1, 2])
    assert sorted(name for name in found if 'BatchNorm' not in name) == [
        'Box_0/ClassPredictor/biases', 'Box_0/ClassPredictor/weights', 'F/C/weights', 'F/Conv/weights',
        'F/V1/Conv2d_1_depthwise/depthwise_weights',
    ]  # fmt: skip


def test_what_no_single_constant_follows_is_left_alone(tmp_path):
    builder = Builder()
    builder.layer('a/Conv2D', 'Conv2D', builder.constant('a/weights', np.ones((1, 1, 1, 2)), read=True))
    builder.layer('a/times_itself', 'Mul', builder.last)
    builder.layer('b/Conv2D', 'Conv2D', builder.add('computed', 'RandomUniform'))
    assert list(builder.read(tmp_path)) == ['a/weights']


def splat(builder, name, elements, read=False):
    """A constant that repeats one number, which takes no more than a few bytes of the file."""
    builder.constant(name, 1)
    shape = builder.graph.node[-1].attr['value'].tensor.tensor_shape
    del shape.dim[:]
    shape.dim.add(size=elements)
    return builder.add(f'{name}/read', 'Identity', name) if read else name


def test_constants_that_fill_the_memory_are_refused(tmp_path):
    small, large, many = Builder(), Builder(), Builder()
    splat(small, 'a', 10**6, read=True)
    assert small.read(tmp_path)['a'].shape == (10**6,)
    splat(large, 'a', 10**11, read=True)
    for i in range(12):
        splat(many, f'a{i}', 2**23, read=True)
    for builder in (large, many):
        with pytest.raises(UserError, match=r'frozen.pb of \d+ bytes would fill \d+ bytes of memory'):
            builder.read(tmp_path)


def test_identities_in_a_circle_are_no_constant(tmp_path):
    builder = Builder()
    builder.add('a', 'Identity', 'b')
    builder.add('b', 'Identity', 'a')
    builder.add('c', 'Identity')
    builder.layer('F/Conv2D', 'Conv2D', 'a')
    with pytest.raises(UserError, match='none of its 5 nodes is a variable'):
        builder.read(tmp_path)
    builder.layer('G/Conv2D', 'Conv2D', 'c')
    with pytest.raises(UserError, match='is corrupt'):
        builder.read(tmp_path)
