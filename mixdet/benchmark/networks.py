"""How fast whole networks are against one another, and how much memory they take."""

from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from mmdet.models import BaseDetector
from mmengine.structures import InstanceData
from torch import Tensor

from mixdet.benchmark.memory import peak
from mixdet.benchmark.peers import Alternative, OnnxNetwork, outputs
from mixdet.benchmark.timing import Timing, environment, interleave

MIB = 2**20
WARMUP = 3  # rounds until the process has taken all the memory that it will need


def batch(size: int, image_size: tuple[int, int], num_classes: int) -> dict:
    """Images (N, 3, H, W) of noise with four boxes each, as the data preprocessor gives them."""
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


def measure(
    alternatives: list[Alternative],
    image_size: tuple[int, int] = (320, 320),
    batches: tuple[int, ...] = (1, 8),
    train_batch: int = 8,
    seconds: float = 5.0,
) -> tuple[dict[str, dict[str, Timing]], dict[str, dict[str, float]]]:
    """Time inference, and the training step (losses, backward, SGD) of those that train, interleaved.

    Without NMS. A backbone's loss is the mean of its features.

    Returns:
        what was measured -> name -> timing, and what was measured -> name -> peak of memory in MiB, see
        :func:`mixdet.benchmark.memory.peak`; ONNX Runtime's memory is not PyTorch's to count.
    """
    timings, memory = {}, {}
    for size in batches:
        x = torch.randn(size, 3, *image_size, generator=torch.Generator().manual_seed(0))
        runs = {other.name: inference(other, x) for other in alternatives}
        part = f'inference, batch {size}'
        timings[part] = interleave(runs, seconds, 3, warmup=WARMUP)
        memory[part] = {
            other.name: peak(runs[other.name]) / MIB for other in alternatives if not isinstance(other.run, OnnxNetwork)
        }
    if train_batch:
        steps = {
            other.name: training_step(other, train_batch, image_size)
            for other in alternatives
            if other.model is not None
        }
        part = f'training step, batch {train_batch}'
        timings[part] = interleave(steps, seconds, 7, warmup=WARMUP)
        memory[part] = {name: peak(step) / MIB for name, step in steps.items()}
    return timings, memory


def _arranged(x: Tensor, channels_last: bool) -> Tensor:
    return x.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def inference(other: Alternative, x: Tensor) -> Callable[[], None]:
    """What does one inference of the images ``x``, (N, 3, H, W); the model is now in evaluation mode."""
    if other.model is not None:
        other.model.eval()
    x = _arranged(x, other.channels_last)

    @torch.no_grad()
    def run() -> None:
        other.run(x)

    return run


def training_step(other: Alternative, size: int, image_size: tuple[int, int]) -> Callable[[], None]:
    """What does one step of training on ``size`` images: losses, backward, SGD. A backbone's loss: see measure."""
    model = other.model
    detector = isinstance(model, BaseDetector)
    data = batch(size, image_size, model.bbox_head.num_classes if detector else 1)
    data['inputs'] = _arranged(data['inputs'], other.channels_last)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1e-4, momentum=0.9)

    def run() -> None:
        model.train()
        if detector:
            loss, _ = model.parse_losses(model(**data, mode='loss'))
        else:
            loss = sum(out.mean() for out in outputs(model, data['inputs']))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def markdown(
    timings: dict[str, dict[str, Timing]],
    memory: dict[str, dict[str, float]],
    found: dict[str, float],
    reference: str,
) -> str:
    """The results as a page; ratios are over ``reference``, on the clock and in CPU time. ``found``: errors."""
    lines = [
        f'Measured on {environment()}; ms, median [quartiles] of interleaved runs, without NMS. Memory: the most bytes '
        'of tensors alive at a time beyond those alive before, weights and input that is.',
        '',
        f'| | | ms | over {reference} | CPU time over it | memory, MiB |',
        '|---|---|---|---|---|---|',
    ]
    for part, results in timings.items():
        base = results[reference]
        for name, t in results.items():
            taken = f'{memory[part][name]:.0f}' if name in memory[part] else '-'
            cells = f'{t.wall:.1f} [{t.low:.1f}, {t.high:.1f}] | {t.wall / base.wall:.2f} | {t.cpu / base.cpu:.2f}'
            lines.append(f'| {part} | {name} | {cells} | {taken} |')
    if found:
        errors = '; '.join(f'{name} {error:.1e}' for name, error in found.items())
        lines += ['', f'Largest difference from the same network in float64, of the largest value: {errors}.']
    return '\n'.join(lines) + '\n'


def plot(timings: dict[str, dict[str, Timing]], path: Path) -> None:
    """Draw the times, with their quartiles, into a picture: a row of axes for each thing that was measured."""
    bars = [len(results) for results in timings.values()]
    figure = Figure(figsize=(9, 1.2 + 0.4 * sum(bars) + 0.6 * len(bars)), layout='constrained')
    axes = figure.subplots(len(timings), 1, height_ratios=bars, squeeze=False)[:, 0]
    for axis, (part, results) in zip(axes, timings.items()):
        wall = [t.wall for t in results.values()]
        spread = [[t.wall - t.low for t in results.values()], [t.high - t.wall for t in results.values()]]
        axis.barh(list(results), wall, xerr=spread, height=0.6, color='#4a7fb5', ecolor='black', capsize=2)
        axis.invert_yaxis()
        axis.set(title=part, xlabel='ms')
        axis.grid(axis='x', alpha=0.3)
    figure.suptitle(environment(), fontsize=8)
    figure.savefig(path, dpi=110)
