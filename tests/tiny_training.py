"""A training of under a second that uses every source of randomness: data, dropout and the main process."""

import itertools
import json
import random
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mixdet.compat.checkpoints import weights_only
from mixdet.registry import DATASETS, METRICS, MODELS

BATCHES = 4  # in an epoch
EPOCHS = 3
TIMES = ('time', 'data_time')  # entries of the log that no two runs agree on
counter = itertools.count()


@MODELS.register_module()
class TinyModel(BaseModel):
    """Convolution, batch norm and dropout; learns the mean of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(4, 1)

    def forward(self, x, target, mode):
        out = self.head(self.body(torch.stack(x)).mean((2, 3))).squeeze(1)
        if mode == 'predict':
            return [dict(error=(o - t).abs().item()) for o, t in zip(out, target)]
        return dict(loss=(out - torch.stack(target).to(out)).square().mean())


@DATASETS.register_module()
class TinyDataset(BaseDataset):
    """16 images of 8x8 px, augmented with Python's, NumPy's and torch's generators."""

    METAINFO = dict(classes=('a',))

    def load_data_list(self):
        return [dict(number=i) for i in range(4 * BATCHES)]

    def prepare_data(self, idx):
        image = torch.full((3, 8, 8), float(idx)) / 16 + torch.randn(3, 8, 8) * 0.1
        image = image * random.uniform(0.9, 1.1) + np.random.normal(0, 0.1)
        return dict(x=image, target=image.mean())


@METRICS.register_module()
class TinyMetric(BaseMetric):
    default_prefix = 'tiny'

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(error=float(np.mean([result['error'] for result in results])))


class Killed(BaseException):
    """Takes the place of a kill: nothing catches it, nothing is cleaned up."""


class Kill(Hook):
    """Ends the run before iteration ``at``."""

    priority = 'LOWEST'

    def __init__(self, at: int) -> None:
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.at:
            raise Killed


def config(work_dir, workers=0, persistent=False, by_epoch=True, ema=False, amp=False, accumulate=1, **checkpoint):
    """A config for MMEngine's own Runner with ``mixdet.CheckpointHook``, whose arguments are ``checkpoint``."""
    data = dict(type='mixdet.TinyDataset', serialize_data=False)  # serializing collects garbage, which takes a second
    loader = dict(batch_size=4, num_workers=workers, persistent_workers=persistent, dataset=data)
    loop = dict(type='EpochBasedTrainLoop', max_epochs=EPOCHS, val_interval=1)
    if not by_epoch:
        loop = dict(type='IterBasedTrainLoop', max_iters=EPOCHS * BATCHES, val_interval=BATCHES)
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(type='mixdet.TinyModel'),
            train_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=True)),
            val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
            val_evaluator=dict(type='mixdet.TinyMetric'),
            train_cfg=loop,
            val_cfg=dict(type='ValLoop'),
            optim_wrapper=dict(
                type='mixdet.CPUAmpOptimWrapper' if amp else 'OptimWrapper',
                optimizer=dict(type='AdamW', lr=0.01),
                accumulative_counts=accumulate,
            ),
            param_scheduler=dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=9),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=2),
                checkpoint=dict(
                    dict(type='mixdet.CheckpointHook', interval=3, by_epoch=False, max_keep_ckpts=2), **checkpoint
                ),
            ),
            custom_hooks=[dict(type='EMAHook')] if ema else [],
            log_processor=dict(by_epoch=by_epoch, window_size=3),
            randomness=dict(seed=7),
            work_dir=str(work_dir),
            experiment_name=f'tiny{next(counter)}',
            log_level='WARNING',
        )
    )


def train(cfg, resume=False, kill_at=None, hooks=()) -> Runner:
    """Run ``cfg`` with MMEngine's Runner to the end, or until it is killed before iteration ``kill_at``."""
    cfg.resume = resume
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    if kill_at is not None:
        runner.register_hook(Kill(kill_at))
    try:
        runner.train()
    except Killed:
        pass
    finally:
        # end the workers now: the garbage collector may destroy a loader in an order that makes them wait for seconds
        for loop in (runner.train_loop, runner.val_loop):
            vars(loop).pop('dataloader_iterator', None)
            loop.dataloader._iterator = None
    return runner


def outcome(runner: Runner) -> dict:
    """Everything that two equal runs agree on: weights, optimizer, averaged weights, learning rates, log history."""
    last = torch.load(Path(runner.work_dir, 'last_checkpoint').read_text(), weights_only=weights_only())
    history = last['message_hub']['log_scalars']
    return dict(
        weights={name: value.clone() for name, value in runner.model.state_dict().items()},
        average=last.get('ema_state_dict', {}),
        optimizer=last['optimizer'],
        schedulers=last.get('param_schedulers'),
        best=last['message_hub']['runtime_info'].get('best_score'),
        history={
            name: [values.tolist() for values in buffer.data]
            for name, buffer in history.items()
            if name.split('/')[-1] not in TIMES
        },
        generators=last['mixdet_state']['processes'],
    )


def log_lines(work_dir) -> dict:
    """Lines of scalars.json by iteration and kind, of all runs in ``work_dir``; a later run's take precedence."""
    lines = {}
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json'), key=lambda file: file.stat().st_mtime):
        for line in file.read_text().splitlines():
            values = {key: value for key, value in json.loads(line).items() if key not in (*TIMES, 'memory')}
            lines[values.get('step'), 'loss' in values] = values
    return lines


def difference(first, second) -> float:
    """Largest difference between two outcomes; infinite if their structures or shapes differ."""
    if isinstance(first, torch.Tensor):
        if not isinstance(second, torch.Tensor) or first.shape != second.shape:
            return float('inf')
        return (first.double() - second.double()).abs().max().item() if first.numel() else 0.0
    if isinstance(first, dict):
        if not isinstance(second, dict) or set(first) != set(second):
            return float('inf')
        return max((difference(first[key], second[key]) for key in first), default=0.0)
    if isinstance(first, (list, tuple)):
        if not isinstance(second, (list, tuple)) or len(first) != len(second):
            return float('inf')
        return max(map(difference, first, second), default=0.0)
    if isinstance(first, float) and isinstance(second, float):
        return abs(first - second)
    return 0.0 if first == second else float('inf')
