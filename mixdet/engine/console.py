"""What a run prints: one line per interval and a table at the end."""

import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Optional

import torch
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mixdet.engine.resume import is_finished
from mixdet.evaluation.numbers import IOU_TYPES, STAT_TITLES, CocoNumbers, ap_title, format_number
from mixdet.registry import HOOKS
from mixdet.text import Console, Table, print

if sys.platform != 'win32':
    import resource

DIGITS = 4


@HOOKS.register_module()
class ConsoleHook(Hook):
    """Prints one line per interval of the ``LoggerHook``, one per validation, and the COCO table at the end.

    MMEngine's own log, with its environment and config, goes to the work_dir's log file alone (see ``Runner``).
    """

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        """Say what is trained, and where its files go."""
        self.interval = next((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 10)
        if runner.rank == 0 and not is_finished(runner):
            images = len(runner.train_dataloader.dataset)
            print(f'Training on {images} images per epoch; files in {runner.work_dir}', flush=True)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Optional[dict] = None
    ) -> None:
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

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """A line for boxes and one for masks; the tables after the last validation of a training."""
        if runner.rank != 0 or not metrics:
            return
        when = f'epoch {runner.epoch}' if isinstance(runner.train_loop, EpochBasedTrainLoop) else f'iter {runner.iter}'
        numbers = CocoNumbers.from_metrics(metrics)
        for iou_type, of_type in numbers.by_type.items():
            parts = (
                f'{STAT_TITLES[name].split()[-1]} {format_number(value, DIGITS)}'
                for name, value in of_type.stats.items()
                if 'AR' not in name
            )
            print(f'val {when}  {ap_title(iou_type, numbers.by_type)} {"  ".join(parts)}', flush=True)
        if not numbers.by_type:
            print(f'val {when}  {metrics}', flush=True)
        if runner.iter >= runner.max_iters:
            print_metrics(metrics)

    def after_test_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """The tables."""
        if runner.rank == 0 and metrics:
            print_metrics(metrics)


def print_metrics(metrics: dict[str, float]) -> None:
    """Print the twelve COCO numbers and AP per class, of boxes and of masks, and then any other metrics."""
    console = Console(100)
    numbers = CocoNumbers.from_metrics(metrics)
    for iou_type, of_type in numbers.by_type.items():
        rows = [(STAT_TITLES[name], value) for name, value in of_type.stats.items()]
        console.print(_two_columns(f'COCO {IOU_TYPES[iou_type]} evaluation', 'metric', rows))
        if of_type.per_class:
            title = f'{ap_title(iou_type, numbers.by_type)} per class'
            console.print(_two_columns(title[0].upper() + title[1:], 'class', list(of_type.per_class.items())))
    if numbers.other:
        title = 'Other metrics' if numbers.by_type else 'Results'
        console.print(_two_columns(title, 'metric', list(numbers.other.items())))


def _two_columns(title: str, header: str, rows: Sequence[tuple[str, float]]) -> Table:
    """A table of names and numbers, folded to two pairs of columns where it is long."""
    folds = 2 if len(rows) > 6 else 1
    height = -(-len(rows) // folds)
    table = Table(title=title)
    for _ in range(folds):
        table.add_column(header)
        table.add_column('value', justify='right')
    for i in range(height):
        table.add_row(*(cell for name, value in rows[i::height] for cell in (name, format_number(value, DIGITS))))
    return table


def _memory() -> str:
    """Peak memory: of the GPU if there is one, else of this process, which Windows does not tell."""
    if torch.cuda.is_available():
        return f'{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB'
    if sys.platform == 'win32':
        return 'unknown'
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f'{peak / (2**20 if sys.platform == "darwin" else 2**10):.0f} MiB'
