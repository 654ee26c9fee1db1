"""Where the time of a network goes, operator by operator."""

from collections.abc import Callable, Sequence

import torch
from torch.profiler import ProfilerActivity, profile

from mixdet.benchmark.machine import environment
from mixdet.benchmark.networks import WARMUP, inference, training_step
from mixdet.benchmark.peers import Peer

# the position of the weights among the inputs of convolution operators
WEIGHTS = {
    'aten::mkldnn_convolution': 1,
    'aten::_slow_conv2d_forward': 1,
    'aten::_slow_conv2d_backward': 2,
    'aten::convolution_backward': 2,
}


def operator_times(work: Callable[[], object], repeats: int = 5, warmup: int = WARMUP) -> dict[str, float]:
    """Wall-clock milliseconds of ``work()`` in each operator itself, largest first; the mean of ``repeats`` calls.

    Convolutions are told apart by their weights: 1x1, depthwise and dense. The profiler makes small operators appear
    longer than they are. ``work`` is called ``warmup`` times beforehand.
    """
    spent: dict[str, float] = {}
    for call in range(warmup + repeats):
        # one call per profile: the profiler's own memory would fragment what the next call could use again
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
            work()
        if call < warmup:
            continue
        for event in profiled.key_averages(group_by_input_shape=True):
            name = _operator_name(event.key, event.input_shapes)
            spent[name] = spent.get(name, 0.0) + event.self_cpu_time_total / 1e3 / repeats
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def _operator_name(operator: str, shapes: Sequence[Sequence[int]]) -> str:
    at = WEIGHTS.get(operator)
    if at is None or len(shapes) <= at or len(shapes[at]) != 4:
        return operator
    _, channels, *kernel = shapes[at]
    return f'{operator}, {"1x1" if kernel == [1, 1] else "depthwise" if channels == 1 else "dense"}'


def operators_markdown(
    peers: Sequence[Peer],
    image_size: tuple[int, int],
    batches: Sequence[int] = (),
    train_batch: int = 0,
    rows: int = 12,
    repeats: int = 5,
    warmup: int = WARMUP,
) -> str:
    """Tables of the ``rows`` operators that take the most time, for inference and training step of each of ``peers``.

    Those that do not run in PyTorch are left out.
    """
    works = {
        f'{peer.name}, inference, batch {size}': inference(peer, torch.randn(size, 3, *image_size))
        for size in batches
        for peer in peers
        if peer.in_pytorch
    }
    if train_batch:
        for peer in peers:
            if peer.model is not None:
                step = training_step(peer.model, peer.channels_last, train_batch, image_size)
                works[f'{peer.name}, training step, batch {train_batch}'] = step
    lines = [f'Measured on {environment()}; under the profiler.']
    for title, work in works.items():
        spent = operator_times(work, repeats, warmup)
        total = sum(spent.values())
        lines += ['', f'{title}, {total:.3g} ms:', '', '| operator itself | ms | share |', '|---|---|---|']
        lines += [f'| `{name}` | {ms:.2f} | {ms / total:.0%} |' for name, ms in list(spent.items())[:rows]]
    return '\n'.join(lines) + '\n'
