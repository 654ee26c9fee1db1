"""Mixed precision on CPUs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mixdet.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """``OptimWrapper`` whose forward pass runs in bfloat16 autocast on CPU.

    MMEngine's ``AmpOptimWrapper`` refuses CPUs. bfloat16 has float32's range, so no loss scaling is needed. On most
    CPUs it is slower than float32; its purpose is that ``--amp`` can be tried anywhere.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """MMEngine's context (gradient accumulation) with autocast inside."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield
