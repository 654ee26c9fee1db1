import numpy as np
import pytest
import torch
from torch import nn

from mixdet.errors import UserError
from mixdet.layers import MixConv2d
from mixdet.weights.filling import Entry, fill


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def entries(model):
    linear, norm = model
    return [
        Entry(linear.weight, 'w', np.transpose),
        Entry(linear.bias, ('b0', 'b1')),
        *(Entry(getattr(norm, name), name) for name in ('weight', 'bias', 'running_mean', 'running_var')),
    ]


SOURCE = dict(
    w=np.arange(6, dtype=np.float32).reshape(2, 3),
    b0=np.float32([1]),
    b1=np.float32([2, 3]),
    **{name: np.full(3, i, np.float32) for i, name in enumerate(('weight', 'bias', 'running_mean', 'running_var'))},
)


def test_every_tensor_is_copied_converted_and_concatenated(model):
    assert fill(model, entries(model), SOURCE) == []
    assert model[0].weight.tolist() == [[0, 3], [1, 4], [2, 5]] and model[0].bias.tolist() == [1, 2, 3]
    assert model[1].running_mean.tolist() == [2, 2, 2] and model[1].running_var.tolist() == [3, 3, 3]


def test_what_is_left_over_is_returned_if_it_is_allowed(model):
    source = {**SOURCE, 'Logits/w': np.zeros(1), 'num_batches_tracked': np.zeros(())}
    assert fill(model, entries(model), source, allow=['Logits/*']) == ['Logits/w']
    with pytest.raises(UserError, match='1 of the source are not used .*: Logits/w$'):
        fill(model, entries(model), source)


def test_every_problem_is_named(model):
    source = {**SOURCE, 'b0': np.float32([1, 2]), 'x': np.zeros(1)}
    del source['w']
    with pytest.raises(UserError) as error:
        fill(model, entries(model)[:-1], source)
    assert str(error.value) == (
        'these weights do not fit the model: 1 tensors are missing in the source: w; 1 have another shape: b0 (2,) '
        '((4,) for (3,)); 2 of the source are not used (allow them by name to leave them out): running_var, x; '
        '1 of the model are not filled: 1.running_var'
    )


def test_at_most_eight_names_of_a_kind_are_listed(model):
    for number, end in ((8, 'x7$'), (9, r'x7 \.\.\.$')):
        with pytest.raises(UserError, match=f'{number} of the source are not used .*: x0, .*{end}'):
            fill(model, entries(model), {**SOURCE, **{f'x{i}': np.zeros(1) for i in range(number)}})


def test_buffers_that_are_not_saved_need_no_entry(model):
    model.register_buffer('cache', torch.zeros(1), persistent=False)
    assert fill(model, entries(model), SOURCE) == []
    model.register_buffer('saved', torch.zeros(1))
    with pytest.raises(UserError, match='1 of the model are not filled: saved$'):
        fill(model, entries(model), SOURCE)


def test_a_mixed_convolution_takes_a_kernel_for_each_group():
    conv = MixConv2d(4, 4, (3, 5))
    kernels = np.arange(36, dtype=np.float32).reshape(4, 1, 3, 3)
    fill(conv, [Entry(conv, 'w')], {'w': kernels})
    small, large = (part.weight.detach() for part in conv.convs)
    assert torch.equal(small, torch.from_numpy(kernels[:2]))
    assert torch.equal(large[:, :, 1:4, 1:4], torch.from_numpy(kernels[2:])) and large.sum() == kernels[2:].sum()
    dilated = MixConv2d(4, 4, (3, 5), dilated=True)
    with pytest.raises(UserError, match='dilated kernels cannot hold the taps'):
        fill(dilated, [Entry(dilated, 'w')], {'w': kernels})
