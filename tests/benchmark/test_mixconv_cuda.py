"""What of the benchmark for GPUs can be tested without one."""

import pytest
import torch

from mixdet.benchmark import mixconv, mixconv_cuda
from mixdet.benchmark.timing import wall_and_cpu_time
from mixdet.layers import MixConv2d, triton_ops

CASE = mixconv.Case(6, 6, 'k35', 2, 2)


def test_bytes_are_counted_once():
    layer = MixConv2d(6, 6, (3, 5), stride=2, impl='split')
    x = torch.randn(2, 6, 6, 6)
    weights = sum(parameter.nbytes for parameter in layer.parameters())
    out = layer(x).nbytes
    moved = mixconv_cuda.bytes_moved(CASE, torch.float32)
    assert moved == dict(forward=x.nbytes + weights + out, training=3 * x.nbytes + 3 * weights + 2 * out)
    assert mixconv_cuda.bytes_moved(CASE, torch.bfloat16)['forward'] == moved['forward'] / 2


def test_copy_speed_counts_reads_and_writes():
    assert mixconv_cuda.copy_speed(lambda copy: (copy(), (0.5, 0))[1], device='cpu', size=1000) == 4000


def test_each_of_pytorchs_depthwise_kernels_is_chosen():
    names = {each.depthwise_kernel for each in mixconv_cuda.CUDA_IMPLEMENTATIONS.values()}
    assert names == ({None, 'native', 'cudnn'} if hasattr(torch.backends.cudnn, 'depthwise_kernel') else {None})
    assert mixconv.BASELINE in mixconv_cuda.CUDA_IMPLEMENTATIONS
    for each in mixconv_cuda.CUDA_IMPLEMENTATIONS.values():
        with each.backend_setting():
            assert getattr(torch.backends.cudnn, 'depthwise_kernel', 'auto') == (each.depthwise_kernel or 'auto')
        assert getattr(torch.backends.cudnn, 'depthwise_kernel', 'auto') == 'auto'


@pytest.mark.parametrize('dtype', mixconv_cuda.DTYPES)
def test_measures_and_reports(dtype):
    available = mixconv_cuda.CUDA_IMPLEMENTATIONS
    names = ['split NCHW', 'split', *(name for name, each in available.items() if each.depthwise_kernel), 'padded']
    if dtype == 'bfloat16' and triton_ops.available('cpu'):  # once: its interpreter is slow
        names.append('triton')
    result = mixconv_cuda.time_mixconv_on_gpu(
        CASE,
        {name: available[name] for name in names},
        0.0,
        mixconv_cuda.DTYPES[dtype],
        device='cpu',
        timer=wall_and_cpu_time,
    )
    assert list(result.forward) == list(result.training) == names
    page = mixconv_cuda.mixconv_cuda_markdown({dtype: [result]}, 1e6, 'a machine')
    floor = mixconv_cuda.bytes_moved(CASE, mixconv_cuda.DTYPES[dtype])['forward'] / 1e6
    assert f'## {dtype}' in page and f'| {CASE} | {floor:.3g} |' in page
    assert all(page.count(f'| {name} |') >= 1 for name in names)
