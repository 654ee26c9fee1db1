"""How fast whole detectors are against one another."""

import copy
from collections.abc import Mapping

import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mixdet.analysis.timing import Timing, environment, interleave
from mixdet.deploy import fuse
from mixdet.layers import set_mixconv_impl
from mixdet.registry import MODELS


def build(cfg: Config) -> nn.Module:
    """The detector of ``cfg`` with random weights."""
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(cfg.model))
    # MMDetection 3.3's SSDHead cannot predict: it lacks the attribute that prediction asks for
    head = getattr(model, 'bbox_head', None)
    if type(head).__name__ == 'SSDHead' and not hasattr(head, 'loss_cls'):
        head.loss_cls = MODELS.build(dict(type='mmdet.CrossEntropyLoss'))
    return model


def as_split(model: nn.Module) -> nn.Module:
    """A copy computed as stock PyTorch and timm do: group by group and a concatenation, NCHW."""
    return set_mixconv_impl(copy.deepcopy(model), 'split').to(memory_format=torch.contiguous_format)


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
    models: Mapping[str, nn.Module],
    channels_last: Mapping[str, bool],
    image_size: tuple[int, int] = (320, 320),
    batches: tuple[int, ...] = (1, 8),
    train_batch: int = 8,
    seconds: float = 5.0,
    fused: tuple[str, ...] = (),
) -> dict[str, dict[str, Timing]]:
    """Time the network of each detector, and its training step (losses, backward, SGD), interleaved.

    Returns what was measured -> name -> timing. ``fused``: names whose inference is also timed after
    :func:`mixdet.deploy.fuse`.
    """
    models = {
        name: model.to(memory_format=torch.channels_last if channels_last[name] else torch.contiguous_format)
        for name, model in models.items()
    }
    results = {}
    ready = {name: model.eval() for name, model in models.items()}
    for name in fused:
        ready[f'{name}, fused'] = fuse(models[name])
        channels_last = {**channels_last, f'{name}, fused': channels_last[name]}
    for size in batches:
        x = torch.randn(size, 3, *image_size)
        results[f'inference, batch {size}'] = interleave(
            {name: _inference(model, _arranged(x, channels_last[name])) for name, model in ready.items()}, seconds, 3
        )
    if train_batch:
        steps = {}
        for name, model in models.items():
            data = batch(train_batch, image_size, model.bbox_head.num_classes)
            data['inputs'] = _arranged(data['inputs'], channels_last[name])
            steps[name] = _training_step(model.train(), data)
        results[f'training step, batch {train_batch}'] = interleave(steps, seconds, 3)
    return results


def _arranged(x: Tensor, channels_last: bool) -> Tensor:
    return x.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _inference(model: nn.Module, x: Tensor):
    @torch.no_grad()
    def run() -> None:
        model(x, mode='tensor')

    return run


def _training_step(model: nn.Module, data: dict):
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1e-4, momentum=0.9)

    def run() -> None:
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def markdown(results: dict[str, dict[str, Timing]], reference: str) -> str:
    """The results as a table; ratios are over ``reference``, on the clock and in CPU time."""
    lines = [
        f'Measured on {environment()}; ms, median [quartiles] of interleaved runs.',
        '',
        f'| | | ms | over {reference} | CPU time over it |',
        '|---|---|---|---|---|',
    ]
    for part, timings in results.items():
        base = timings[reference]
        for name, t in timings.items():
            cells = f'{t.wall:.1f} [{t.low:.1f}, {t.high:.1f}] | {t.wall / base.wall:.2f} | {t.cpu / base.cpu:.2f}'
            lines.append(f'| {part} | {name} | {cells} |')
    return '\n'.join(lines) + '\n'
