"""A page that sets several trainings side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from matplotlib.figure import Figure

from mixdet.errors import UserError
from mixdet.evaluation.numbers import IOU_TYPES, STAT_TITLES, IouTypeNumbers, ap_title
from mixdet.report.card import describe_latency
from mixdet.report.figures import SERIES, line_figure
from mixdet.report.page import AP_FIGURES, NO_VALIDATION, capital
from mixdet.report.rendering import format_count, svgs, write_page
from mixdet.report.run import TrainingRun
from mixdet.report.start import describe_start

Rows = list[tuple[str, list[Optional[float]]]]  # of a table: its name, and a value for each run
ALWAYS = 3  # facts of the model cards that are shown also if they are equal: the sizes and the latency


def write_comparison(runs: Sequence[TrainingRun], path: Path) -> Path:
    """Write a page that sets ``runs`` side by side to ``path``."""
    names = unique_names(runs)
    colors = {name: SERIES[i % len(SERIES)] for i, name in enumerate(names)}
    tables = comparison_tables(runs)
    return write_page(
        'compare.html',
        path,
        title=f'{len(runs)} runs',
        runs=dict(zip(names, runs)),
        colors=colors,
        curves=svgs({**_ap_curves(runs, names, colors, tables), **loss_curves(runs, names, colors)}),
        tables=tables,
        facts=differing_facts(runs),
    )


def comparison_tables(runs: Sequence[TrainingRun]) -> dict[str, tuple[Rows, Rows]]:
    """By IoU type, as far as a run has it: the COCO numbers and AP per class of each run's best validation."""
    best = [(run.best_validation or NO_VALIDATION).numbers for run in runs]
    tables = {}
    for iou_type in IOU_TYPES:
        of_type = [numbers.by_type.get(iou_type, IouTypeNumbers()) for numbers in best]
        if not any(numbers.stats for numbers in of_type):
            continue
        classes = list(dict.fromkeys(name for numbers in of_type for name in numbers.per_class))
        tables[iou_type] = (
            [(title, [numbers.stats.get(name) for numbers in of_type]) for name, title in STAT_TITLES.items()],
            [(name, [numbers.per_class.get(name) for numbers in of_type]) for name in classes],
        )
    return tables


def loss_curves(
    runs: Sequence[TrainingRun], names: Sequence[str], colors: dict[str, str]
) -> dict[str, tuple[str, Figure]]:
    """Titles and figures of the losses, one for each kind: only sums of the same parts can be compared."""
    kinds: dict[tuple, list[int]] = {}
    known = all('losses' in run.card for run in runs)  # else their names must do
    for i, run in enumerate(runs):
        if run.train:
            losses = sorted(run.card['losses'].items()) if known else []
            kinds.setdefault((*run.loss_names, *losses), []).append(i)
    curves = {}
    for number, members in enumerate(kinds.values(), 1):
        first = runs[members[0]]
        parts = ', '.join(name.removeprefix('loss_') for name in first.loss_names[1:])
        title = 'Loss' if len(kinds) == 1 else f'Loss of {first.card.get("model") or names[members[0]]}: {parts}'
        lines = {names[i]: runs[i].train_curve('loss') for i in members}
        figure = line_figure(lines, 'iteration', 'loss', log=True, legend=False, colors=colors)
        curves['loss' if number == 1 else f'loss_{number}'] = (title, figure)
    return curves


def unique_names(runs: Sequence[TrainingRun]) -> list[str]:
    """A short name for each: the config's, or the path's last parts where that would not tell them apart.

    Raises UserError if two are the same.
    """
    parts = [run.work_dir.resolve().parts for run in runs]
    if len(set(parts)) < len(parts):
        raise UserError('a work dir is given twice: ' + ' '.join(str(run.work_dir) for run in runs))
    names = [run.name for run in runs]
    depth = 0
    while len(set(names)) < len(names):
        depth += 1
        names = ['/'.join(path[-depth:]) for path in parts]
    return names


def differing_facts(runs: Sequence[TrainingRun]) -> list[tuple[str, list[str]]]:
    """What the model cards say, a row per fact; facts that all runs share are left out, except for sizes."""
    facts = {
        'parameters': lambda card: format_count(card.get('params')),
        'MACs': lambda card: format_count(card.get('macs')),
        'latency': lambda card: describe_latency(card) or '-',
        'started from': describe_start,
        'backbone': lambda card: card.get('backbone', '-'),
        'input': lambda card: 'x'.join(map(str, card.get('input_size', ['-']))),
        'losses': lambda card: ', '.join(f'{name} {loss}' for name, loss in card.get('losses', {}).items()) or '-',
        'batch size': lambda card: str(card.get('batch_size', '-')),
        'optimizer': lambda card: card.get('optimizer', '-'),
        'training set': lambda card: card.get('train', {}).get('annotations', '-'),
        'training images': lambda card: str(card.get('train', {}).get('images', '-')),
        'validation set': lambda card: card.get('val', {}).get('annotations', '-'),
        'seed': lambda card: str(card.get('seed', '-')),
        'device': lambda card: card.get('device', '-'),
        'threads': lambda card: str(card.get('threads', '-')),
        'revision': lambda card: card.get('revision') or '-',
    }
    rows = [(name, [tell(run.card) for run in runs]) for name, tell in facts.items()]
    return [row for i, row in enumerate(rows) if i < ALWAYS or len(set(row[1])) > 1]


def _ap_curves(
    runs: Sequence[TrainingRun], names: Sequence[str], colors: dict[str, str], tables: dict
) -> dict[str, tuple[str, Figure]]:
    """Titles and figures of AP; over iterations if some runs count these and others epochs."""
    by_epoch = all(run.by_epoch for run in runs)
    curves = {}
    for iou_type in tables:
        lines = {}
        for name, run in zip(names, runs):
            steps, values = run.val_curve('mAP', iou_type)
            lines[name] = (steps if by_epoch else run.iterations(steps), values)
        title = ap_title(iou_type, tables)
        unit = 'epoch' if by_epoch else 'iteration'
        figure = line_figure(lines, unit, title, legend=False, steps=True, colors=colors)
        curves[AP_FIGURES[iou_type]] = (capital(title), figure)
    return curves
