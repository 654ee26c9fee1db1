import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mixdet.engine.finite import all_finite, nonfinite_buffers, nonfinite_part

BAD = [float('nan'), float('inf'), -float('inf')]


@given(
    st.lists(st.floats(width=32), max_size=4), st.lists(st.floats(width=32), max_size=4),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
)  # fmt: skip
def test_all_finite_is_exact(first, second, dtype):
    """Also where the sum of finite values overflows, or infinities cancel out."""
    tensors = [torch.tensor(first, dtype=torch.float32), torch.tensor(second).to(dtype)]
    assert all_finite(tensors) == all(bool(tensor.isfinite().all()) for tensor in tensors)


def test_large_values_are_finite():
    large = torch.full((3,), 3e38)
    assert all_finite([large, large]) and all_finite([])
    assert not all_finite([torch.tensor([float('inf'), -float('inf')])])


def checkpoint():
    weights = dict(weight=torch.ones(2), count=torch.tensor(3))
    return dict(
        state_dict=dict(weights, statistic=torch.ones(2)),
        ema_state_dict={f'module.{name}': value.clone() for name, value in weights.items()},
        optimizer=dict(state={0: dict(exp_avg=torch.ones(2))}, param_groups=[dict(lr=0.1)]),
        mixdet_state=dict(processes=[dict(gradients={}), dict(gradients=dict(weight=torch.ones(2)))]),
        meta=dict(iter=1),
    )


PLACES = {
    'state_dict.weight': lambda whole: whole['state_dict']['weight'],
    'state_dict.statistic': lambda whole: whole['state_dict']['statistic'],
    'ema_state_dict.module.weight': lambda whole: whole['ema_state_dict']['module.weight'],
    'optimizer.state.0.exp_avg': lambda whole: whole['optimizer']['state'][0]['exp_avg'],
    'gradient.weight': lambda whole: whole['mixdet_state']['processes'][1]['gradients']['weight'],
}


@pytest.mark.parametrize('bad', BAD)
@pytest.mark.parametrize('place', PLACES)
def test_each_part_of_a_checkpoint_is_checked(place, bad):
    whole = checkpoint()
    assert nonfinite_part(whole) is None
    PLACES[place](whole)[1] = bad
    harmless = place.startswith('optimizer') and bad == bad
    assert nonfinite_part(whole) == (None if harmless else place)


@pytest.mark.parametrize('several', [False, True])
def test_gradients_under_a_loss_scaler_may_overflow(several):
    whole = checkpoint()
    whole['mixdet_state']['processes'][1]['gradients']['weight'][0] = float('inf')
    whole['optimizer']['loss_scaler'] = dict(scale=65536.0)
    whole['optimizer'] = dict(one={}, other=whole['optimizer']) if several else whole['optimizer']
    assert nonfinite_part(whole) is None


def test_buffers_that_are_infinite_by_design():
    model = nn.Linear(2, 2)
    assert nonfinite_buffers(model) == frozenset()
    model.register_buffer('mask', torch.tensor([0.0, -float('inf')]))
    model.register_buffer('index', torch.tensor([1, 2]))
    assert nonfinite_buffers(model) == {'mask'}
    weights = model.state_dict()
    averaged = {f'module.{name}': value for name, value in weights.items()}
    whole = dict(state_dict=weights, ema_state_dict=averaged)
    assert nonfinite_part(whole) == 'state_dict.mask' and nonfinite_part(whole, frozenset({'mask'})) is None


def test_other_content_is_passed_over():
    eight_bits = torch.ones(2).to(getattr(torch, 'float8_e4m3fn', torch.int8))
    assert nonfinite_part(dict(state_dict=dict(a='text', b=None, c=eight_bits), optimizer=None)) is None
    assert nonfinite_part({}) is None
