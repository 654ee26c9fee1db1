"""How fast each form of the mixed convolution is, over the layers of the paper's networks."""

import contextlib
import copy
import itertools
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Optional

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from mixdet.benchmark.timing import Timing, environment, interleave, on_the_clock
from mixdet.errors import UserError
from mixdet.layers import MixConv2d

# (channels, height and width in px) of depthwise layers in MobileNetV2 and MixNet at 320x320
SHAPES = ((144, 80), (192, 40), (240, 40), (384, 20), (576, 20), (960, 10), (1200, 10))
KERNELS = {'k35': (3, 5), 'k357': (3, 5, 7), 'k3579': (3, 5, 7, 9)}
# what others do: PyTorch's convolutions group by group and a concatenation, NCHW (timm's MixedConv2d)
BASELINE = 'split NCHW'
FORMS = {
    BASELINE: ('split', False),
    'split': ('split', True),
    'padded NCHW': ('padded', False),
    'padded': ('padded', True),
    'native NCHW': ('native', False),
    'native': ('native', True),
}
PARTS = {'forward': 'forward', 'training': 'forward and backward'}
# of the largest value, against float64
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}


class Case(NamedTuple):
    """A layer and its input: (batch, channels, size, size)."""

    channels: int
    size: int
    kernels: str
    stride: int
    batch: int

    def __str__(self) -> str:
        return f'{self.channels}@{self.size} {self.kernels} s{self.stride} b{self.batch}'


class Result(NamedTuple):
    """Timings of each form, forward in inference and forward with backward."""

    case: Case
    forward: dict[str, Timing]
    training: dict[str, Timing]


def cases(kernels: Iterable[str] = tuple(KERNELS), strides=(1, 2), batches=(1, 8), shapes=SHAPES) -> list[Case]:
    """All combinations."""
    return [
        Case(channels, size, name, stride, batch)
        for (channels, size), name, stride, batch in itertools.product(shapes, kernels, strides, batches)
    ]


def prepare(layer: MixConv2d, name: str) -> tuple[nn.Module, bool]:
    """``layer`` as the form ``name`` of FORMS, and whether its input is channels_last."""
    layer.impl, channels_last = FORMS[name]
    return layer, channels_last


def measure(
    case: Case,
    forms: Iterable[str],
    seconds: float,
    device: str = 'cpu',
    dtype: torch.dtype = torch.float32,
    prepare: Callable[[MixConv2d, str], tuple[nn.Module, bool]] = prepare,
    setting: Callable[[str], contextlib.AbstractContextManager] = contextlib.nullcontext,
    timer: Callable = on_the_clock,
) -> Result:
    """Time ``forms`` of one layer, interleaved, after checking each against float64.

    Args:
        case: the layer and its input.
        forms: names of forms.
        seconds: at least, for forward and for training.
        device: where.
        dtype: of input and weights.
        prepare: makes a layer the form of a name, and says whether its input is channels_last.
        setting: what every call of the form of a name is made in.
        timer: see :func:`interleave`.

    Raises:
        UserError: if a form is not within TOLERANCE of it.
    """
    torch.manual_seed(0)
    layer = MixConv2d(case.channels, case.channels, KERNELS[case.kernels], case.stride).to(device, dtype)
    x = torch.randn(case.batch, case.channels, case.size, case.size, device=device).to(dtype)
    exact = copy.deepcopy(layer).double()
    exact.impl = 'split'
    expected = _step(exact, x.double().requires_grad_(), None)
    upstream = torch.randn_like(expected[0]).to(dtype)
    expected = _step(exact, x.double().requires_grad_(), upstream.double())
    forward, training = {}, {}
    for name in forms:
        form, channels_last = prepare(copy.deepcopy(layer), name)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        inputs, gradient = x.to(memory_format=layout).requires_grad_(), upstream.to(memory_format=layout)

        def infer(name=name, form=form, inputs=inputs) -> None:
            with torch.no_grad(), setting(name):
                form(inputs)

        def train(name=name, form=form, inputs=inputs, gradient=gradient) -> list[Tensor]:
            with setting(name):
                return _step(form, inputs, gradient)

        for actual, wanted in zip(train(), expected):
            error = ((actual - wanted).abs().max() / wanted.abs().max()).item()
            if not error < TOLERANCE[dtype]:
                raise UserError(f'{name} is wrong by {error:.1e} of the largest value at {case}')
        forward[name], training[name] = infer, train
    return Result(case, interleave(forward, seconds, timer=timer), interleave(training, seconds, timer=timer))


def _step(layer: nn.Module, x: Tensor, upstream: Optional[Tensor]) -> list[Tensor]:
    """Output and, with ``upstream``, the gradients of input and weights."""
    out = layer(x)
    if upstream is None:
        return [out]
    return [out.detach(), *torch.autograd.grad(out, [x, *layer.parameters()], upstream)]


def ratios(results: list[Result], form: str, part: str, clock: str = 'wall') -> list[float]:
    """Time of ``form`` over the baseline's in each case; ``part``: forward or training, ``clock``: wall or cpu."""
    return [
        getattr(getattr(result, part)[form], clock) / getattr(getattr(result, part)[BASELINE], clock)
        for result in results
    ]


def markdown(results: list[Result]) -> str:
    """The results as a page of Markdown."""
    forms = list(results[0].forward)
    others = [form for form in forms if form != BASELINE]
    lines = [
        f'Measured on {environment()}. Forms without a note are channels_last.',
        '',
        f'Time over that of {BASELINE} in {len(results)} layers, median (worst); on the clock | CPU time:',
        '',
        '| form | forward | forward + backward |',
        '|---|---|---|',
    ]
    for form in others:
        cells = []
        for part in PARTS:
            clocks = (ratios(results, form, part, clock) for clock in ('wall', 'cpu'))
            cells.append(' \\| '.join(f'{statistics.median(r):.2f} ({max(r):.2f})' for r in clocks))
        lines.append(f'| {form} | {cells[0]} | {cells[1]} |')
    for part in PARTS:
        lines += layer_table(results, part)
    return '\n'.join(lines) + '\n'


def layer_table(results: list[Result], part: str, floors: Iterable[float] = ()) -> list[str]:
    """Lines of Markdown with every layer's times in ``part`` of PARTS, and ``floors`` in a column of its own."""
    floors = list(floors)
    forms = getattr(results[0], part)
    columns = ['layer', *(['floor'] if floors else []), *forms]
    lines = [
        '',
        f'{PARTS[part].capitalize()}, ms, median [quartiles]:',
        '',
        f'| {" | ".join(columns)} |',
        '|---' * len(columns) + '|',
    ]
    for index, result in enumerate(results):
        cells = [f'{floors[index]:.3g}'] if floors else []
        cells += [f'{t.wall:.3g} [{t.low:.3g}, {t.high:.3g}]' for t in getattr(result, part).values()]
        lines.append(f'| {result.case} | {" | ".join(cells)} |')
    return lines


def plot(results: list[Result], path: Path) -> None:
    """Draw the ratios into a picture."""
    figure = Figure(figsize=(12, 8), layout='constrained')
    axes = figure.subplots(2, 1, sharex=True)
    for axis, (part, title) in zip(axes, PARTS.items()):
        for form in results[0].forward:
            if form != BASELINE:
                axis.plot(ratios(results, form, part), marker='o', markersize=3, linewidth=1, label=form)
        axis.axhline(1, color='black', linewidth=0.8)
        axis.set(ylabel=f'time / {BASELINE}', title=title, ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend(ncols=3)
    axes[1].set_xticks(range(len(results)), [str(result.case) for result in results], rotation=90, fontsize=6)
    figure.suptitle(environment(), fontsize=9)
    figure.savefig(path, dpi=110)
