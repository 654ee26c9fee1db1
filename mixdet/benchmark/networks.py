"""How fast whole networks are against one another, and how much memory they take."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from mmdet.models import BaseDetector
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mixdet.benchmark.machine import environment
from mixdet.benchmark.memory import peak_memory
from mixdet.benchmark.peers import Peer, network_outputs
from mixdet.benchmark.timing import Timing, time_in_turns
from mixdet.engine.atomic import atomic_path
from mixdet.text import plot_text

MIB = 2**20
WARMUP = 3  # rounds until the process has allocated all the memory that it needs

Timings = dict[str, dict[str, Timing]]  # by work, such as 'inference, batch 1', and by peer
Memory = dict[str, dict[str, float]]  # MiB, by the same


def noise_batch(size: int, image_size: tuple[int, int], num_classes: int) -> dict:
    """Images (N, 3, H, W) of noise with four boxes each, as the data preprocessor returns them."""
    from mmdet.structures import DetDataSample

    generator = torch.Generator().manual_seed(0)
    height, width = image_size
    samples = []
    for i in range(size):
        meta = dict(img_shape=image_size, ori_shape=image_size, pad_shape=image_size, batch_input_shape=image_size)
        sample = DetDataSample(metainfo=dict(meta, scale_factor=(1.0, 1.0), img_id=i, img_path=f'{i}.jpg'))
        corner = torch.rand(4, 2, generator=generator) * 0.5
        boxes = torch.cat([corner, corner + 0.2 + 0.3 * torch.rand(4, 2, generator=generator)], 1)
        sample.gt_instances = InstanceData(
            bboxes=boxes * torch.tensor([width, height, width, height]),
            labels=torch.randint(num_classes, (4,), generator=generator),
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    return dict(inputs=torch.randn(size, 3, height, width, generator=generator), data_samples=samples)


def measure_networks(
    peers: Sequence[Peer],
    image_size: tuple[int, int] = (320, 320),
    batches: Sequence[int] = (1, 8),
    train_batch: int = 8,
    seconds: float = 5.0,
) -> tuple[Timings, Memory]:
    """Time the inference of all ``peers`` and the training step of those that can be trained, in turns.

    NMS is left out.

    Args:
        peers: the networks.
        image_size: height and width, px.
        batches: batch sizes for inference.
        train_batch: batch size of the training step; 0 for none.
        seconds: for each measurement.

    Returns:
        Times, and the peak of memory (:func:`mixdet.benchmark.memory.peak_memory`) of the peers that run in PyTorch.
    """
    timings, memory = {}, {}
    for size in batches:
        x = torch.randn(size, 3, *image_size, generator=torch.Generator().manual_seed(0))
        calls = {peer.name: inference(peer, x) for peer in peers}
        work = f'inference, batch {size}'
        timings[work] = time_in_turns(calls, seconds, rounds=3, warmup=WARMUP)
        memory[work] = {peer.name: peak_memory(calls[peer.name]) / MIB for peer in peers if peer.in_pytorch}
    if train_batch:
        steps = {
            peer.name: training_step(peer.model, peer.channels_last, train_batch, image_size)
            for peer in peers
            if peer.model is not None
        }
        work = f'training step, batch {train_batch}'
        timings[work] = time_in_turns(steps, seconds, rounds=7, warmup=WARMUP)
        memory[work] = {name: peak_memory(step) / MIB for name, step in steps.items()}
    return timings, memory


def _in_memory_format(x: Tensor, channels_last: bool) -> Tensor:
    return x.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def inference(peer: Peer, x: Tensor) -> Callable[[], None]:
    """A function that runs ``peer`` on the images ``x``, (N, 3, H, W); puts its model into evaluation mode."""
    if peer.model is not None:
        peer.model.eval()
    x = _in_memory_format(x, peer.channels_last)

    @torch.no_grad()
    def run() -> None:
        peer.run(x)

    return run


def training_step(model: nn.Module, channels_last: bool, size: int, image_size: tuple[int, int]) -> Callable[[], None]:
    """A function that does one training step on ``size`` images: losses, backward pass, SGD.

    ``model`` is a detector, or a backbone, whose loss is the sum of the means of its features.
    """
    data = noise_batch(size, image_size, _num_classes(model))
    data['inputs'] = _in_memory_format(data['inputs'], channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def run() -> None:
        model.train()
        _loss(model, data).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def _num_classes(model: Any) -> int:
    return model.bbox_head.num_classes if isinstance(model, BaseDetector) else 1


def _loss(model: Any, data: dict) -> Tensor:
    if isinstance(model, BaseDetector):
        return model.parse_losses(model(**data, mode='loss'))[0]
    return torch.stack([out.mean() for out in network_outputs(model, data['inputs'])]).sum()


def networks_markdown(timings: Timings, memory: Memory, errors: dict[str, float], reference: str) -> str:
    """A table of the results; ratios are over the peer ``reference``. ``errors``: see ``float64_errors``."""
    lines = [
        f'Measured on {environment()}; ms, median [quartiles] of runs in turns, without NMS. Memory: the most bytes of '
        'tensors alive at a time, beyond those alive before (weights, input).',
        '',
        f'| | | ms | over {reference} | CPU time over it | memory, MiB |',
        '|---|---|---|---|---|---|',
    ]
    for work, results in timings.items():
        base = results[reference]
        for name, t in results.items():
            taken = f'{memory[work][name]:.0f}' if name in memory[work] else '-'
            cells = f'{t.wall:.1f} [{t.low:.1f}, {t.high:.1f}] | {t.wall / base.wall:.2f} | {t.cpu / base.cpu:.2f}'
            lines.append(f'| {work} | {name} | {cells} | {taken} |')
    if errors:
        cells = '; '.join(f'{name} {error:.1e}' for name, error in errors.items())
        lines += ['', f'Largest difference from the same network in float64, over the largest value: {cells}.']
    return '\n'.join(lines) + '\n'


def plot_networks(timings: Timings, path: Path) -> None:
    """Draw the times and their quartiles into a PNG: one panel for each inference and training step."""
    bars = [len(results) for results in timings.values()]
    figure = Figure(figsize=(9, 1.2 + 0.4 * sum(bars) + 0.6 * len(bars)), layout='constrained')
    axes = figure.subplots(len(timings), 1, height_ratios=bars, squeeze=False)[:, 0]
    for axis, (work, results) in zip(axes, timings.items()):
        wall = [t.wall for t in results.values()]
        spread = [[t.wall - t.low for t in results.values()], [t.high - t.wall for t in results.values()]]
        axis.barh(list(results), wall, xerr=spread, height=0.6, color='#4a7fb5', ecolor='black', capsize=2)
        axis.invert_yaxis()
        axis.set(title=plot_text(work), xlabel='ms')
        axis.grid(axis='x', alpha=0.3)
    figure.suptitle(plot_text(environment()), fontsize=8)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=110)
