"""How fast each form of the mixed convolution is on a GPU, beside the time that moving its bytes takes."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Optional

import torch
from torch import nn

from mixdet.benchmark import mixconv
from mixdet.benchmark.mixconv import BASELINE, KERNELS, PARTS, Case, Result, layer_table, ratios
from mixdet.benchmark.timing import environment
from mixdet.layers import MixConv2d

DTYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}
CACHE = 256 * 2**20  # bytes; more than the cache of a GPU


class Form(NamedTuple):
    """``impl`` in a memory format, with ``torch.backends.cudnn.depthwise_kernel`` if named, or by torch.compile."""

    impl: str
    channels_last: bool
    depthwise: Optional[str] = None
    compiled: bool = False


FORMS = {
    f'{name}{suffix}': Form(impl, channels_last, depthwise, compiled)
    for name, impl, depthwise, compiled in (
        ('split', 'split', None, False),
        ('split by PyTorch', 'split', 'native', False),
        ('split by cuDNN', 'split', 'cudnn', False),
        ('split compiled', 'split', None, True),
        ('padded', 'padded', None, False),
        ('triton', 'triton', None, False),
    )
    for channels_last, suffix in ((False, ' NCHW'), (True, ''))
    # older PyTorch has no such choice
    if depthwise is None or hasattr(torch.backends.cudnn, 'depthwise_kernel')
}


def measure(
    case: Case, forms: Iterable[str], seconds: float, dtype: torch.dtype, device: str = 'cuda', timer=None
) -> Result:
    """:func:`mixconv.measure` on a GPU; ``timer`` is an :class:`EventTimer` for all cases.

    Raises:
        UserError: if a form is not within mixconv.TOLERANCE of float64.
    """
    # float32 is not to be rounded to TF32, and cuDNN may look for its fastest kernel
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        return mixconv.measure(case, forms, seconds, device, dtype, prepare, setting, timer or EventTimer())


def prepare(layer: MixConv2d, name: str) -> tuple[nn.Module, bool]:
    """``layer`` as the form ``name`` of FORMS, and whether its input is channels_last."""
    form = FORMS[name]
    layer.impl = form.impl
    return torch.compile(layer, fullgraph=True, dynamic=False) if form.compiled else layer, form.channels_last


@contextlib.contextmanager
def setting(name: str) -> Iterator[None]:
    """PyTorch's choice of depthwise kernels as the form ``name`` wants it."""
    kernel = FORMS[name].depthwise
    if kernel:
        before, torch.backends.cudnn.depthwise_kernel = torch.backends.cudnn.depthwise_kernel, kernel
    try:
        yield
    finally:
        if kernel:
            torch.backends.cudnn.depthwise_kernel = before


class EventTimer:
    """Times a call by CUDA events, with caches full of other data; beside it the CPU time that launching it took.

    Overwriting the caches keeps the GPU busy while the call is being launched, so that the first figure is the GPU's
    alone as long as the second one is small.
    """

    def __init__(self) -> None:
        self.other = torch.empty(CACHE, dtype=torch.uint8, device='cuda')
        self.events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]

    def __call__(self, function: Callable[[], object]) -> tuple[float, float]:
        self.other.zero_()
        start, end = self.events
        start.record()
        before = time.process_time()
        function()
        launched = time.process_time() - before
        end.record()
        end.synchronize()
        return start.elapsed_time(end), 1e3 * launched


def bandwidth(timer: Callable, device: str = 'cuda', size: int = 2**30, repeats: int = 20) -> float:
    """Bytes that a copy of ``size`` bytes reads and writes in a millisecond, median."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = [timer(lambda: target.copy_(source))[0] for _ in range(repeats)]
    return 2 * size / statistics.median(times)


def bytes_moved(case: Case, dtype: torch.dtype) -> dict[str, int]:
    """The fewest bytes for a forward pass and for one with its backward pass, everything read and written once.

    Forward reads input and weights and writes the output. Backward reads the output's gradient, the input and the
    weights, and writes the gradients of both.
    """
    out_size = -(-case.size // case.stride)
    x, out = (case.batch * case.channels * size**2 for size in (case.size, out_size))
    layer = MixConv2d(case.channels, case.channels, KERNELS[case.kernels])
    weights = sum(parameter.numel() for parameter in layer.parameters())
    return {
        'forward': (x + weights + out) * dtype.itemsize,
        'training': (3 * x + 3 * weights + 2 * out) * dtype.itemsize,
    }


def gpu(speed_of_copies: float) -> str:
    """The GPU and the versions that a measurement was made with, in one line."""
    try:
        import triton

        kernels = f'Triton {triton.__version__}'
    except ImportError:
        kernels = 'no Triton'
    return (
        f'{torch.cuda.get_device_name()}, copies at {speed_of_copies / 1e9:.2f} TB/s, CUDA {torch.version.cuda}, '
        f'cuDNN {torch.backends.cudnn.version()}, {kernels}; {environment()}'
    )


def markdown(results: dict[str, list[Result]], speed_of_copies: float, machine: str) -> str:
    """The results of each dtype as a page of Markdown; ``machine`` from :func:`gpu`."""
    lines = [
        f'Measured on {machine}. Forms without a note are channels_last; caches cold, float32 without TF32.',
        'The floor is the time to move every byte once at the speed of a copy.',
    ]
    for dtype, measured in results.items():
        forms = list(measured[0].forward)
        floors = [
            {part: moved / speed_of_copies for part, moved in bytes_moved(result.case, DTYPES[dtype]).items()}
            for result in measured
        ]
        lines += [
            '',
            f'## {dtype}',
            '',
            f'In {len(measured)} layers, median (worst): time over that of {BASELINE}; floor over time.',
            '',
            '| form | forward | of the floor | forward + backward | of the floor | launching forward, ms CPU |',
            '|---|---|---|---|---|---|',
        ]
        for form in forms:
            cells = []
            for part in PARTS:
                over = ratios(measured, form, part)
                reached = [f[part] / getattr(result, part)[form].wall for f, result in zip(floors, measured)]
                cells.append(f'{statistics.median(over):.2f} ({max(over):.2f})')
                cells.append(f'{statistics.median(reached):.0%} ({min(reached):.0%})')
            launch = statistics.median(result.forward[form].cpu for result in measured)
            lines.append(f'| {form} | {" | ".join(cells)} | {launch:.3f} |')
        for part in PARTS:
            lines += layer_table(measured, part, (floor[part] for floor in floors))
    return '\n'.join(lines) + '\n'
