import random

import numpy as np
import torch

from mixdet.compat.checkpoints import weights_only
from mixdet.engine.randomness import rng_state, seeded, set_rng_state


def test_the_state_is_restored_from_a_file_loaded_with_weights_only(tmp_path):
    random.gauss(0, 1)
    np.random.randn()
    torch.save(rng_state(), tmp_path / 'a.pth')
    expected = [random.gauss(0, 1), np.random.randn(), torch.rand(3).tolist()]
    set_rng_state(torch.load(tmp_path / 'a.pth', weights_only=weights_only()))
    assert [random.gauss(0, 1), np.random.randn(), torch.rand(3).tolist()] == expected


def test_keys_seed_differently():
    with seeded(1, 2):
        first = torch.rand(4)
    with seeded(1, 3):
        assert not torch.equal(first, torch.rand(4))
    with seeded(1, 2):
        assert torch.equal(first, torch.rand(4))
