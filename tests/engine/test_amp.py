import torch
from torch import nn

from mixdet.engine import CPUAmpOptimWrapper


def test_cpu_amp_runs_convolutions_in_bfloat16_and_steps():
    model = nn.Conv2d(3, 4, 1)
    before = model.weight.detach().clone()
    wrapper = CPUAmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    with wrapper.optim_context(model):
        out = model(torch.ones(1, 3, 4, 4))
    assert out.dtype == torch.bfloat16
    wrapper.update_params(out.float().square().mean())
    assert model.weight.dtype == torch.float32 and not torch.equal(model.weight, before)
