"""What a run prints: one line per interval and a table at the end."""

import math
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Optional

import torch
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import EpochBasedTrainLoop
from rich.console import Console
from rich.table import Table

from mixdet.evaluation.coco import STATS
from mixdet.evaluation.metric import CLASS_SUFFIX
from mixdet.registry import HOOKS

try:
    import resource
except ImportError:  # Windows
    resource = None

TITLES = {
    'mAP': 'AP  IoU .50:.95',
    'mAP_50': 'AP  IoU .50',
    'mAP_75': 'AP  IoU .75',
    'mAP_s': 'AP  small',
    'mAP_m': 'AP  medium',
    'mAP_l': 'AP  large',
    'AR@1': 'AR  1 per image',
    'AR@10': 'AR  10 per image',
    'AR@100': 'AR  100 per image',
    'AR_s@100': 'AR  small',
    'AR_m@100': 'AR  medium',
    'AR_l@100': 'AR  large',
}


@HOOKS.register_module()
class ConsoleHook(Hook):
    """Prints one line per interval of the ``LoggerHook``, one per validation, and the COCO table at the end.

    MMEngine's own log, with its environment and config, goes to the work_dir's log file alone (see ``Runner``).
    """

    priority = 'VERY_LOW'

    def before_train(self, runner) -> None:
        """Say what is trained, and where its files go."""
        self.interval = next((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 10)
        if runner.rank == 0:
            images = len(runner.train_dataloader.dataset)
            print(f'Training on {images} images a pass; files in {runner.work_dir}', flush=True)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """One line: epoch, iteration, losses, learning rate, time left, memory."""
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        done = batch_idx + 1 if by_epoch else runner.iter + 1
        total = len(runner.train_dataloader) if by_epoch else runner.max_iters
        if runner.rank != 0 or (done % self.interval and done != total):
            return
        scalars = runner.message_hub.log_scalars
        losses = {
            key[len('train/') :]: history.mean(min(self.interval, done))
            for key, history in scalars.items()
            if key.startswith('train/') and 'loss' in key
        }
        parts = ', '.join(f'{name[5:]} {value:.3f}' for name, value in losses.items() if name.startswith('loss_'))
        seconds = scalars['train/time'].mean(self.interval)
        left = timedelta(seconds=int(seconds * (runner.max_iters - runner.iter - 1)))
        rate = next(history.current() for key, history in scalars.items() if key.startswith('train/lr'))
        epoch = f'epoch {runner.epoch + 1}/{runner.max_epochs}  ' if by_epoch else ''
        print(
            f'{epoch}iter {done}/{total}  loss {losses["loss"]:.3f} ({parts})  lr {rate:.2e}  '
            f'{seconds:.2f} s/iter  eta {left}  mem {_memory()}',
            flush=True,
        )

    def after_val_epoch(self, runner, metrics: Optional[dict] = None) -> None:
        """One line; the table after the last validation of a training."""
        if runner.rank != 0 or not metrics:
            return
        headline = '  '.join(
            f'{TITLES[name].split()[-1]} {_number(value)}'
            for name, value in _stats(metrics).items()
            if 'AR' not in name
        )
        when = f'epoch {runner.epoch}' if isinstance(runner.train_loop, EpochBasedTrainLoop) else f'iter {runner.iter}'
        print(f'val {when}  AP {headline}' if headline else f'val {when}  {metrics}', flush=True)
        if runner.iter >= runner.max_iters:
            print_coco_table(metrics)

    def after_test_epoch(self, runner, metrics: Optional[dict] = None) -> None:
        """The table."""
        if runner.rank == 0 and metrics:
            print_coco_table(metrics)


def print_coco_table(metrics: dict[str, float]) -> None:
    """Print the twelve COCO numbers, then AP per class; a plain list for metrics that are not COCO's."""
    console = Console(width=None if sys.stdout.isatty() else 100)
    stats = _stats(metrics)
    if not stats:
        console.print(_two_columns('Results', 'metric', [(k, _number(v)) for k, v in metrics.items()]))
        return
    console.print(_two_columns('COCO box evaluation', 'metric', [(TITLES[k], _number(v)) for k, v in stats.items()]))
    classes = [
        (key.partition('/')[2].removesuffix(CLASS_SUFFIX), _number(value))
        for key, value in metrics.items()
        if key.endswith(CLASS_SUFFIX)
    ]
    console.print(_two_columns('AP per class', 'class', classes))


def _stats(metrics: dict[str, float]) -> dict[str, float]:
    by_name = {key.rpartition('bbox_')[2]: value for key, value in metrics.items() if 'bbox_' in key}
    return {name: by_name[name] for name in STATS if name in by_name}


def _number(value: float) -> str:
    return '-' if math.isnan(value) or value < 0 else f'{value:.4f}'


def _two_columns(title: str, header: str, rows: Sequence[tuple[str, str]]) -> Table:
    """A table of name and number, folded to two pairs of columns where it is long."""
    folds = 2 if len(rows) > 6 else 1
    height = -(-len(rows) // folds)
    table = Table(title=title, title_justify='left')
    for _ in range(folds):
        table.add_column(header)
        table.add_column('value', justify='right')
    for i in range(height):
        table.add_row(*(cell for row in rows[i::height] for cell in row))
    return table


def _memory() -> str:
    """Peak memory: of the GPU where there is one, else of this process where the system tells it."""
    if torch.cuda.is_available():
        return f'{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB'
    if resource is None:
        return 'unknown'
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f'{peak / (2**20 if sys.platform == "darwin" else 2**10):.0f} MiB'
