"""The figures of the results page."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mixdet.engine.atomic import atomic_path, make_folder, writing
from mixdet.reproduction.results_page import PICTURES, Results
from mixdet.reproduction.run_results import RunResult
from mixdet.text import plot_text

MARKERS = 'osD^v<>ph*'


def plot_results(results: Results, folder: Path) -> list[Path]:
    """Draw the figures into ``folder``, a panel for each data set; returns their files, none without results.

    Raises:
        UserError: if a file cannot be written.
    """
    if not results.runs:
        return []
    paths = [folder / name for name in PICTURES]
    make_folder(folder)
    for path, draw in zip(paths, (_draw_ap, _draw_loss)):
        names = results.data_sets
        figure = Figure(figsize=(6 * len(names), 4.5), layout='constrained')
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
            draw(axes, results.rows(name))
            axes.set_title(plot_text(name))
            axes.grid(alpha=0.3)
        with writing(path), atomic_path(path) as partial:
            figure.savefig(partial, dpi=100)
    return paths


def _draw_ap(axes: Axes, rows: dict[str, list[RunResult]]) -> None:
    """Mean AP of each row with its standard deviation against its multiply-adds."""
    families = list(dict.fromkeys(runs[0].family for runs in rows.values()))
    for i, family in enumerate(families):
        shown = {row: runs for row, runs in rows.items() if runs[0].family == family}
        axes.errorbar(
            [runs[0].macs / 1e9 for runs in shown.values()],
            [100 * statistics.fmean(_aps(runs)) for runs in shown.values()],
            [100 * statistics.stdev(_aps(runs)) if len(runs) > 1 else 0 for runs in shown.values()],
            fmt=MARKERS[i % len(MARKERS)],
            capsize=3,
            label=plot_text(family),
        )
        for row, runs in shown.items():
            place = (runs[0].macs / 1e9, 100 * statistics.fmean(_aps(runs)))
            name = row.removeprefix(f'{family}-')
            axes.annotate(plot_text(name), place, xytext=(5, 5), textcoords='offset points', fontsize=8)
    axes.set(xlabel='multiply-adds, $10^9$', ylabel='AP, %')
    axes.margins(x=0.25, y=0.1)  # room for the names
    axes.legend(fontsize=8)


def _draw_loss(axes: Axes, rows: dict[str, list[RunResult]]) -> None:
    """The mean loss curve of each row over its seeds."""
    families = list(dict.fromkeys(runs[0].family for runs in rows.values()))
    for i, (row, runs) in enumerate(rows.items()):
        length = min(len(run.loss) for run in runs)
        points = [[run.loss[k] for run in runs] for k in range(length)]
        style = '-' if families.index(runs[0].family) % 2 == 0 else '--'
        losses = [statistics.fmean(loss for _, loss in seeds) for seeds in points]
        axes.plot([seeds[0][0] for seeds in points], losses, style, color=f'C{i % 10}', lw=1.2, label=plot_text(row))
    axes.set(xlabel='iteration', ylabel='training loss', yscale='log')
    axes.legend(fontsize=7)


def _aps(runs: Sequence[RunResult]) -> list[float]:
    return [run.ap for run in runs]
