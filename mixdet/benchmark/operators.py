"""Where the time of a network goes, operator by operator."""

from collections.abc import Callable, Sequence

import torch
from torch.profiler import ProfilerActivity, profile

from mixdet.benchmark.networks import WARMUP, inference, training_step
from mixdet.benchmark.peers import Alternative, OnnxNetwork
from mixdet.benchmark.timing import environment

# of operators that take a convolution's weights: the position of these among the inputs
WEIGHTS = {
    'aten::mkldnn_convolution': 1,
    'aten::_slow_conv2d_forward': 1,
    'aten::_slow_conv2d_backward': 2,
    'aten::convolution_backward': 2,
}


def times(work: Callable[[], object], repeats: int = 5) -> dict[str, float]:
    """Milliseconds on the clock that ``work()`` spends in each operator itself, largest first; a mean of ``repeats``.

    Convolutions are told apart by their weights: 1x1, depthwise and others. The profiler makes many small operators
    longer than they are.
    """
    spent: dict[str, float] = {}
    for number in range(WARMUP + repeats):
        # one call at a time: what the profiler remembers of more splits the memory that the next call would use again
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as run:
            work()
        if number < WARMUP:
            continue
        for event in run.key_averages(group_by_input_shape=True):
            name = _name(event.key, event.input_shapes)
            spent[name] = spent.get(name, 0.0) + event.self_cpu_time_total / 1e3 / repeats
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def _name(operator: str, shapes: Sequence[Sequence[int]]) -> str:
    at = WEIGHTS.get(operator)
    if at is None or len(shapes) <= at or len(shapes[at]) != 4:
        return operator
    _, channels, *kernel = shapes[at]
    return f'{operator}, {"1x1" if kernel == [1, 1] else "depthwise" if channels == 1 else "dense"}'


def markdown(
    alternatives: Sequence[Alternative],
    image_size: tuple[int, int],
    batches: Sequence[int] = (),
    train_batch: int = 0,
    rows: int = 12,
) -> str:
    """Tables of the operators in which ``alternatives`` spend most, in inference and in a training step.

    ONNX Runtime's operators are not PyTorch's to time.
    """
    ours = [other for other in alternatives if not isinstance(other.run, OnnxNetwork)]
    works = {
        f'{other.name}, inference, batch {size}': inference(other, torch.randn(size, 3, *image_size))
        for size in batches
        for other in ours
    }
    if train_batch:
        trained = [other for other in ours if other.model is not None]
        part = f'training step, batch {train_batch}'
        works.update({f'{other.name}, {part}': training_step(other, train_batch, image_size) for other in trained})
    lines = [f'Measured on {environment()}; under the profiler.']
    for title, work in works.items():
        spent = times(work)
        total = sum(spent.values())
        lines += ['', f'{title}, {total:.3g} ms:', '', '| operator itself | ms | share |', '|---|---|---|']
        lines += [f'| `{name}` | {ms:.2f} | {ms / total:.0%} |' for name, ms in list(spent.items())[:rows]]
    return '\n'.join(lines) + '\n'
