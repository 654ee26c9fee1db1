"""How fast each implementation of MixConv2d is, over the layers of the paper's networks."""

import contextlib
import copy
import functools
import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from mixdet.benchmark.machine import environment
from mixdet.benchmark.timing import Timer, Timing, time_in_turns, wall_and_cpu_time
from mixdet.engine.atomic import atomic_path
from mixdet.errors import UserError
from mixdet.layers import MixConv2d
from mixdet.text import plot_text

# (channels, height and width in px) of depthwise layers in MobileNetV2 and MixNet at 320x320
SHAPES = ((144, 80), (192, 40), (240, 40), (384, 20), (576, 20), (960, 10), (1200, 10))
KERNELS = {'k35': (3, 5), 'k357': (3, 5, 7), 'k3579': (3, 5, 7, 9)}
DIRECTIONS = {'forward': 'forward', 'training': 'forward and backward'}
# of the largest difference from float64, relative to the largest value
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}


class Implementation(NamedTuple):
    """``impl`` of MixConv2d in a memory format.

    ``depthwise_kernel``: the setting of ``torch.backends.cudnn.depthwise_kernel`` while it runs, None for PyTorch's
    default. ``compiled``: by ``torch.compile``.
    """

    impl: str
    channels_last: bool
    depthwise_kernel: Optional[str] = None
    compiled: bool = False

    def build(self, layer: MixConv2d) -> nn.Module:
        """A copy of ``layer`` that is computed this way."""
        layer = copy.deepcopy(layer)
        layer.impl = self.impl
        if self.compiled:
            layer.compile(fullgraph=True, dynamic=False)
        return layer

    @contextlib.contextmanager
    def backend_setting(self) -> Iterator[None]:
        """PyTorch's choice of depthwise kernels as this implementation needs it."""
        if self.depthwise_kernel is None:
            yield
            return
        before = torch.backends.cudnn.depthwise_kernel
        torch.backends.cudnn.depthwise_kernel = self.depthwise_kernel
        try:
            yield
        finally:
            torch.backends.cudnn.depthwise_kernel = before


REFERENCE = Implementation('split', channels_last=False)
# what others do: PyTorch's convolutions group by group and a concatenation, NCHW (timm's MixedConv2d)
BASELINE = 'split NCHW'
CPU_IMPLEMENTATIONS = {
    f'{impl}{suffix}': Implementation(impl, channels_last)
    for impl in ('split', 'padded', 'native')
    for channels_last, suffix in ((False, ' NCHW'), (True, ''))
}


class Case(NamedTuple):
    """A layer and its input: (batch, channels, size, size)."""

    channels: int
    size: int
    kernels: str
    stride: int
    batch: int

    def __str__(self) -> str:
        return f'{self.channels}@{self.size} {self.kernels} s{self.stride} b{self.batch}'


class CaseTimings(NamedTuple):
    """Timings of each implementation of a layer: ``forward`` in inference, ``training`` forward and backward."""

    case: Case
    forward: dict[str, Timing]
    training: dict[str, Timing]


def cases(
    kernels: Iterable[str] = tuple(KERNELS),
    strides: Iterable[int] = (1, 2),
    batches: Iterable[int] = (1, 8),
    shapes: Iterable[tuple[int, int]] = SHAPES,
) -> list[Case]:
    """All combinations."""
    return [
        Case(channels, size, name, stride, batch)
        for (channels, size), name, stride, batch in itertools.product(shapes, kernels, strides, batches)
    ]


def time_mixconv(
    case: Case,
    implementations: Mapping[str, Implementation],
    seconds: float,
    device: str = 'cpu',
    dtype: torch.dtype = torch.float32,
    timer: Timer = wall_and_cpu_time,
) -> CaseTimings:
    """Time ``implementations`` of one layer in turns, after checking each against float64.

    Args:
        case: the layer and its input.
        implementations: by name.
        seconds: how long to measure, for forward and for training.
        device: 'cpu' or 'cuda'.
        dtype: of input and weights.
        timer: see :func:`mixdet.benchmark.timing.time_in_turns`.

    Raises:
        UserError: if the error of an implementation exceeds TOLERANCE.
    """
    torch.manual_seed(0)
    layer = MixConv2d(case.channels, case.channels, KERNELS[case.kernels], case.stride).to(device, dtype)
    x = torch.randn(case.batch, case.channels, case.size, case.size, device=device).to(dtype)
    exact = REFERENCE.build(layer).double()
    output_gradient = torch.randn_like(exact(x.double())).to(dtype)
    expected = _training_pass(REFERENCE, exact, x.double().requires_grad_(), output_gradient.double())
    forward, training = {}, {}
    for name, implementation in implementations.items():
        memory_format = torch.channels_last if implementation.channels_last else torch.contiguous_format
        module = implementation.build(layer)
        inputs = x.to(memory_format=memory_format).requires_grad_()
        gradient = output_gradient.to(memory_format=memory_format)
        forward[name] = functools.partial(_inference_pass, implementation, module, inputs)
        training[name] = functools.partial(_training_pass, implementation, module, inputs, gradient)
        for actual, wanted in zip(training[name](), expected):
            error = ((actual - wanted).abs().max() / wanted.abs().max()).item()
            if not error < TOLERANCE[dtype]:
                raise UserError(f'{name} is wrong by {error:.1e} of the largest value at {case}')
    return CaseTimings(
        case, time_in_turns(forward, seconds, timer=timer), time_in_turns(training, seconds, timer=timer)
    )


def _inference_pass(implementation: Implementation, layer: nn.Module, x: Tensor) -> None:
    with torch.no_grad(), implementation.backend_setting():
        layer(x)


def _training_pass(
    implementation: Implementation, layer: nn.Module, x: Tensor, output_gradient: Tensor
) -> list[Tensor]:
    """The output, and the gradients of input and weights."""
    with implementation.backend_setting():
        out = layer(x)
        return [out.detach(), *torch.autograd.grad(out, [x, *layer.parameters()], output_gradient)]


def ratios(results: Sequence[CaseTimings], name: str, direction: str, clock: str = 'wall') -> list[float]:
    """Time of the implementation ``name`` over the baseline's, for each layer.

    ``direction``: 'forward' or 'training'. ``clock``: 'wall' or 'cpu'.
    """
    timings = [getattr(result, direction) for result in results]
    return [getattr(each[name], clock) / getattr(each[BASELINE], clock) for each in timings]


def mixconv_markdown(results: Sequence[CaseTimings]) -> str:
    """The results in Markdown: a summary, and the times of every layer."""
    lines = [
        f'Measured on {environment()}. Implementations without a note are channels_last.',
        '',
        f'Time over that of {BASELINE} in {len(results)} layers, median (worst); wall-clock | CPU time:',
        '',
        '| implementation | forward | forward + backward |',
        '|---|---|---|',
    ]
    for name in results[0].forward:
        if name != BASELINE:
            cells = ' | '.join(_ratio_cell(results, name, direction) for direction in DIRECTIONS)
            lines.append(f'| {name} | {cells} |')
    for direction in DIRECTIONS:
        lines += layer_table(results, direction)
    return '\n'.join(lines) + '\n'


def _ratio_cell(results: Sequence[CaseTimings], name: str, direction: str) -> str:
    clocks = [ratios(results, name, direction, clock) for clock in ('wall', 'cpu')]
    return ' \\| '.join(f'{statistics.median(each):.2f} ({max(each):.2f})' for each in clocks)


def layer_table(results: Sequence[CaseTimings], direction: str, floors: Iterable[float] = ()) -> list[str]:
    """Lines of a Markdown table: every layer's times in one of DIRECTIONS, and ``floors`` (ms) in their own column."""
    floors = list(floors)
    columns = ['layer', *(['floor'] if floors else []), *getattr(results[0], direction)]
    lines = [
        '',
        f'{DIRECTIONS[direction].capitalize()}, ms, median [quartiles]:',
        '',
        f'| {" | ".join(columns)} |',
        '|---' * len(columns) + '|',
    ]
    for index, result in enumerate(results):
        cells = [f'{floors[index]:.3g}'] if floors else []
        cells += [f'{t.wall:.3g} [{t.low:.3g}, {t.high:.3g}]' for t in getattr(result, direction).values()]
        lines.append(f'| {result.case} | {" | ".join(cells)} |')
    return lines


def plot_mixconv(results: Sequence[CaseTimings], path: Path) -> None:
    """Draw the ratios of all layers into a PNG."""
    figure = Figure(figsize=(12, 8), layout='constrained')
    axes = figure.subplots(2, 1, sharex=True)
    for axis, (direction, title) in zip(axes, DIRECTIONS.items()):
        for name in results[0].forward:
            if name != BASELINE:
                axis.plot(
                    ratios(results, name, direction), marker='o', markersize=3, linewidth=1, label=plot_text(name)
                )
        axis.axhline(1, color='black', linewidth=0.8)
        axis.set(ylabel=plot_text(f'time / {BASELINE}'), title=plot_text(title), ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend(ncols=3)
    axes[1].set_xticks(range(len(results)), [str(result.case) for result in results], rotation=90, fontsize=6)
    figure.suptitle(plot_text(environment()), fontsize=9)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=110)
