"""Models inside MMEngine's wrappers."""

from mmengine.model import is_model_wrapper
from torch import nn


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model itself if ``model`` wraps it for several processes (DistributedDataParallel), else ``model``."""
    return model.module if is_model_wrapper(model) else model
