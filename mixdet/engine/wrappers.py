"""What is inside MMEngine's wrappers of models and optimizers."""

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model itself if ``model`` wraps it for several processes (DistributedDataParallel), else ``model``."""
    return model.get_submodule('module') if is_model_wrapper(model) else model


def optim_wrappers(optim_wrapper: OptimWrapper) -> list[OptimWrapper]:
    """The wrapper of each optimizer: several in an ``OptimWrapperDict``, else ``optim_wrapper`` alone."""
    return list(optim_wrapper.values()) if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]
