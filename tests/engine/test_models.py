from mmengine.model import MMDistributedDataParallel
from torch import nn

from mixdet.engine.models import unwrap_model


def test_only_wrappers_are_taken_off():
    model = nn.Sequential(nn.Linear(1, 1))
    wrapper = object.__new__(MMDistributedDataParallel)  # its constructor needs a process group
    nn.Module.__init__(wrapper)
    wrapper.module = model
    assert unwrap_model(wrapper) is model and unwrap_model(model) is model
