"""How fast each implementation of MixConv2d is on a GPU, beside the time that moving its bytes takes."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Optional

import torch

from mixdet.benchmark.mixconv import (
    BASELINE,
    DIRECTIONS,
    KERNELS,
    Case,
    CaseTimings,
    Implementation,
    layer_table,
    ratios,
    time_mixconv,
)
from mixdet.benchmark.timing import Timer
from mixdet.layers import MixConv2d

DTYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}
CACHE = 256 * 2**20  # bytes; more than the cache of a GPU

CUDA_IMPLEMENTATIONS = {
    f'{name}{suffix}': Implementation(impl, channels_last, depthwise_kernel, compiled)
    for name, impl, depthwise_kernel, compiled in (
        ('split', 'split', None, False),
        ('split by PyTorch', 'split', 'native', False),
        ('split by cuDNN', 'split', 'cudnn', False),
        ('split compiled', 'split', None, True),
        ('padded', 'padded', None, False),
        ('triton', 'triton', None, False),
    )
    for channels_last, suffix in ((False, ' NCHW'), (True, ''))
    # older PyTorch has no such choice
    if depthwise_kernel is None or hasattr(torch.backends.cudnn, 'depthwise_kernel')
}


class EventTimer:
    """Times a call by CUDA events with cold caches, and the CPU time that launching it takes.

    The caches are overwritten before each call, which keeps the GPU busy while the call is launched: the first time
    is the GPU's alone as long as the second is small.
    """

    def __init__(self) -> None:
        self.other_data = torch.empty(CACHE, dtype=torch.uint8, device='cuda')
        self.events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]

    def __call__(self, function: Callable[[], object]) -> tuple[float, float]:
        """Milliseconds of one call: on the GPU, and of CPU time to launch it."""
        self.other_data.zero_()
        start, end = self.events
        start.record()
        before = time.process_time()
        function()
        launched = time.process_time() - before
        end.record()
        end.synchronize()
        return start.elapsed_time(end), 1e3 * launched


def time_mixconv_on_gpu(
    case: Case,
    implementations: Mapping[str, Implementation],
    seconds: float,
    dtype: torch.dtype,
    device: str = 'cuda',
    timer: Optional[Timer] = None,
) -> CaseTimings:
    """:func:`time_mixconv` on a GPU; ``timer`` is an :class:`EventTimer`, which may serve all cases.

    Raises:
        UserError: if the error of an implementation exceeds ``mixconv.TOLERANCE``.
    """
    # float32 must not be rounded to TF32, and cuDNN may look for its fastest kernel
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        return time_mixconv(case, implementations, seconds, device, dtype, timer or EventTimer())


def copy_speed(timer: Timer, device: str = 'cuda', size: int = 2**30, repeats: int = 20) -> float:
    """Bytes that a copy of ``size`` bytes reads and writes in a millisecond, median."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = [timer(lambda: target.copy_(source))[0] for _ in range(repeats)]
    return 2 * size / statistics.median(times)


def bytes_moved(case: Case, dtype: torch.dtype) -> dict[str, int]:
    """The fewest bytes for a forward pass, and for one with its backward pass, everything read and written once.

    Forward reads input and weights and writes the output. Backward reads the output's gradient, the input and the
    weights, and writes the gradients of input and weights.
    """
    out_size = -(-case.size // case.stride)
    x, out = (case.batch * case.channels * size**2 for size in (case.size, out_size))
    layer = MixConv2d(case.channels, case.channels, KERNELS[case.kernels])
    weights = sum(parameter.numel() for parameter in layer.parameters())
    return {
        'forward': (x + weights + out) * dtype.itemsize,
        'training': (3 * x + 3 * weights + 2 * out) * dtype.itemsize,
    }


def mixconv_cuda_markdown(results: Mapping[str, Sequence[CaseTimings]], bytes_per_ms: float, machine: str) -> str:
    """The results of each dtype in Markdown; ``bytes_per_ms`` from :func:`copy_speed`."""
    lines = [
        f'Measured on {machine}. Implementations without a note are channels_last; caches cold, float32 without TF32.',
        'The floor is the time to move every byte once at the speed of a copy.',
    ]
    for dtype, measured in results.items():
        floors = [
            {direction: moved / bytes_per_ms for direction, moved in bytes_moved(result.case, DTYPES[dtype]).items()}
            for result in measured
        ]
        lines += [
            '',
            f'## {dtype}',
            '',
            f'In {len(measured)} layers, median (worst): time over that of {BASELINE}; floor over time.',
            '',
            '| implementation | forward | of the floor | forward + backward | of the floor '
            '| launching forward, ms CPU |',
            '|---|---|---|---|---|---|',
        ]
        for name in measured[0].forward:
            cells = []
            for direction in DIRECTIONS:
                over = ratios(measured, name, direction)
                times = [getattr(result, direction)[name].wall for result in measured]
                reached = [floor[direction] / time for floor, time in zip(floors, times)]
                cells.append(f'{statistics.median(over):.2f} ({max(over):.2f})')
                cells.append(f'{statistics.median(reached):.0%} ({min(reached):.0%})')
            launch = statistics.median(result.forward[name].cpu for result in measured)
            lines.append(f'| {name} | {" | ".join(cells)} | {launch:.3f} |')
        for direction in DIRECTIONS:
            lines += layer_table(measured, direction, (floor[direction] for floor in floors))
    return '\n'.join(lines) + '\n'
