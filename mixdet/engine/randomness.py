"""The state of Python's, NumPy's and torch's random number generators: saved, restored, seeded."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def rng_state() -> dict[str, Any]:
    """State of Python's, NumPy's and torch's generators, made of types that a ``weights_only`` load accepts."""
    numpy = np.random.get_state(legacy=False)
    keys = torch.from_numpy(numpy['state']['key'].astype(np.int64))
    state: dict[str, Any] = dict(
        python=random.getstate(),
        numpy=(numpy['bit_generator'], keys, numpy['state']['pos'], numpy['has_gauss'], numpy['gauss']),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what ``rng_state`` returned."""
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state['numpy']
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def seed(*key: int) -> None:
    """Seed Python's, NumPy's and torch's CPU generators from ``key``, non-negative integers."""
    first, second, third = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)
    torch.default_generator.manual_seed(third)


@contextlib.contextmanager
def seeded(*key: int) -> Iterator[None]:
    """``seed`` for the code inside; afterwards the generators are as they were before."""
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed(*key)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(pytorch)
