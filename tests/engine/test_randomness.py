import random

import numpy as np
import pytest
import torch

from mixdet.compat.checkpoints import weights_only
from mixdet.engine.randomness import rng_state, seed, seeded, set_rng_state


def draw():
    """Numbers of each generator, the Gaussian ones of which come in pairs."""
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), *torch.rand(3).tolist()]


@pytest.fixture(autouse=True)
def used():
    """Generators that have been used, Gaussian numbers in odd count."""
    seed(99)
    draw()


def test_the_state_is_restored_from_a_file_loaded_with_weights_only(tmp_path):
    torch.save(rng_state(), tmp_path / 'a.pth')
    expected = draw()
    seed(1)
    set_rng_state(torch.load(tmp_path / 'a.pth', weights_only=weights_only()))
    assert draw() == expected


def test_the_state_of_a_gpu_is_saved_and_restored_where_there_is_one(monkeypatch):
    restored = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_rng_state', lambda: torch.tensor([1, 2], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, 'set_rng_state', lambda state: restored.append(state.tolist()))
    state = rng_state()
    set_rng_state(state)
    assert restored == [[1, 2]]
    set_rng_state({name: value for name, value in state.items() if name != 'cuda'})  # saved on a CPU
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    set_rng_state(state)
    assert restored == [[1, 2]] and 'cuda' not in rng_state()


def test_each_generator_is_seeded_by_the_whole_key():
    draws = []
    for key in ((1, 2), (1, 3), (2, 2), (1, 2, 5)):
        seed(*key)
        draws.append(draw())
    for numbers in zip(*draws):
        assert len(set(numbers)) == len(draws)
    seed(1, 2)
    assert draw() == draws[0]


def test_the_generators_are_restored_after_a_seeded_block():
    state = rng_state()
    expected = draw()
    seed(1, 2)
    inside = draw()
    set_rng_state(state)
    with seeded(1, 2):
        assert draw() == inside
    assert draw() == expected
    set_rng_state(state)
    with pytest.raises(ZeroDivisionError), seeded(1, 2):
        1 / 0  # noqa: B018
    assert draw() == expected
