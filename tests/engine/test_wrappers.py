import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from mixdet.engine.wrappers import optim_wrappers, unwrap_model


def test_only_wrappers_are_taken_off():
    model = nn.Sequential(nn.Linear(1, 1))
    wrapper = object.__new__(MMDistributedDataParallel)  # its constructor needs a process group
    nn.Module.__init__(wrapper)
    wrapper.module = model
    assert unwrap_model(wrapper) is model and unwrap_model(model) is model


def test_each_optimizer_has_a_wrapper():
    first, second = (OptimWrapper(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)) for _ in range(2))
    assert optim_wrappers(first) == [first]
    assert optim_wrappers(OptimWrapperDict(a=first, b=second)) == [first, second]
