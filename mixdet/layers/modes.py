"""Training and evaluation mode."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for ``module`` inside the ``with`` block; after it every submodule has its own mode again."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()  # not chained: some of MMDetection's backbones return None here
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training
