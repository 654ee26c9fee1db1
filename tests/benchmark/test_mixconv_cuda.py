"""The parts of the GPU benchmark that can be tested without a GPU."""

import pytest
import torch

from mixdet.benchmark import mixconv, mixconv_cuda
from mixdet.benchmark.timing import Timing, wall_and_cpu_time
from mixdet.layers import MixConv2d, triton_ops

pytestmark = pytest.mark.slow

CASE = mixconv.Case(6, 7, 'k35', 2, 2)


def test_bytes_are_counted_once():
    layer = MixConv2d(6, 6, (3, 5), stride=2, impl='split')
    x = torch.randn(2, 6, 7, 7)
    weights = sum(parameter.nbytes for parameter in layer.parameters())
    out = layer(x).nbytes
    moved = mixconv_cuda.bytes_moved(CASE, torch.float32)
    assert moved == dict(forward=x.nbytes + weights + out, training=3 * x.nbytes + 3 * weights + 2 * out)
    assert mixconv_cuda.bytes_moved(CASE, torch.bfloat16)['forward'] == moved['forward'] / 2


def test_copy_speed_counts_reads_and_writes():
    times = iter((0.25, 8.0, 0.5))  # their median is half a millisecond
    assert mixconv_cuda.copy_speed(lambda copy: (copy(), (next(times), 0))[1], 'cpu', size=1000, repeats=3) == 4000


def test_each_of_pytorchs_depthwise_kernels_is_chosen():
    names = {each.depthwise_kernel for each in mixconv_cuda.CUDA_IMPLEMENTATIONS.values()}
    assert names == ({None, 'native', 'cudnn'} if hasattr(torch.backends.cudnn, 'depthwise_kernel') else {None})
    assert mixconv.BASELINE in mixconv_cuda.CUDA_IMPLEMENTATIONS
    for each in mixconv_cuda.CUDA_IMPLEMENTATIONS.values():
        with each.backend_setting():
            assert getattr(torch.backends.cudnn, 'depthwise_kernel', 'auto') == (each.depthwise_kernel or 'auto')
        assert getattr(torch.backends.cudnn, 'depthwise_kernel', 'auto') == 'auto'


@pytest.mark.parametrize('dtype', mixconv_cuda.DTYPES)
def test_every_implementation_is_measured(dtype):
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


def test_table_of_a_gpu():
    moved = mixconv_cuda.bytes_moved(CASE, torch.float32)

    def timings(scale):
        """Four and two times the floor of a GPU that moves a byte per ms; 3 and 2 ms of launching."""
        return {
            mixconv.BASELINE: Timing(wall=4 * scale, low=4 * scale, high=4 * scale, cpu=3.0),
            'triton': Timing(wall=2 * scale, low=2 * scale, high=2 * scale, cpu=2.0),
        }

    result = mixconv.CaseTimings(CASE, timings(moved['forward']), timings(moved['training']))
    slower = mixconv.CaseTimings(CASE, timings(5 * moved['forward']), timings(5 * moved['training']))
    lines = mixconv_cuda.mixconv_cuda_markdown({'float32': [result, slower]}, 1.0, 'a GPU').splitlines()
    assert lines[0].startswith('Measured on a GPU. ') and lines[3] == '## float32'
    assert lines[10] == '| triton | 0.50 (0.50) | 30% (10%) | 0.50 (0.50) | 30% (10%) | 2.000 |'
    assert f'| 6@7 k35 s2 b2 | {moved["forward"]:.3g} | ' in '\n'.join(lines)
    assert f'| 6@7 k35 s2 b2 | {moved["training"]:.3g} | ' in '\n'.join(lines)
