"""The report's pages, each one HTML file without any reference to another."""

import base64
import shlex
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Optional, Union

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from matplotlib.figure import Figure

from mixdet.engine.console import TITLES
from mixdet.evaluation.details import CONFUSED, FALSE, FOUND, MISSED
from mixdet.report.card import shown_path
from mixdet.report.evaluation import evaluation_figures, frequent_confusions
from mixdet.report.figures import SERIES, line_figure, save_png, to_svg
from mixdet.report.pictures import COLORS
from mixdet.report.run import FOLDER, Run, coco_numbers, read_run, write_csv

REPORT = 'report.html'
RESULTS = 'results.csv'
CLASS_COLUMNS = {
    'boxes': 'boxes', 'AP': 'AP', 'AP50': 'AP50', 'AP75': 'AP75', 'AP_small': 'small', 'AP_medium': 'medium',
    'AP_large': 'large', 'AR': 'AR', 'F1': 'best F1', 'score': 'at score',
}  # fmt: skip
STATES = {FOUND: 'found', CONFUSED: 'wrong class', MISSED: 'missed', FALSE: 'false alarms'}


def write_report(work_dir: Union[str, Path]) -> Path:
    """Write ``report.html``, ``results.csv`` and the curves as PNG files into ``work_dir``; returns the page's path.

    Raises UserError if there is no training in ``work_dir``.
    """
    run = read_run(work_dir)
    write_csv(run, run.work_dir / RESULTS)
    curves = training_curves(run)
    figures = run.work_dir / FOLDER
    figures.mkdir(exist_ok=True)
    for name, (_, figure) in curves.items():
        save_png(figure, figures / f'{name}.png')
    evaluation = evaluation_figures(run.details) if run.details else {}
    page = _template('run.html').render(
        title=run.name,
        run=run,
        stats=coco_numbers(run.last),
        best=run.best,
        curves=_svgs(curves),
        evaluation=_svgs(evaluation),
        details=run.details,
        class_columns=CLASS_COLUMNS,
        confusions=frequent_confusions(run.details) if run.details else [],
        pictures=_pictures(run),
        commands=commands(run),
    )
    return _write(run.work_dir / REPORT, page)


def write_comparison(runs: Sequence[Run], path: Path) -> Path:
    """Write a page that sets ``runs`` side by side to ``path``."""
    names = unique_names(runs)
    colors = {name: SERIES[i % len(SERIES)] for i, name in enumerate(names)}
    x = 'epoch' if all(run.by_epoch for run in runs) else 'iteration'
    curves = dict(
        ap=('AP', line_figure(_over(runs, names, 'val', 'step', 'mAP'), x, 'AP', legend=False)),
        loss=(
            'Loss',
            line_figure(_over(runs, names, 'train', 'iter', 'loss'), 'iteration', 'loss', log=True, legend=False),
        ),
    )
    classes = list(dict.fromkeys(key for run in runs for key in run.best if key.startswith('AP ')))
    page = _template('compare.html').render(
        title=f'{len(runs)} runs',
        runs=dict(zip(names, runs)),
        colors=colors,
        curves=_svgs(curves),
        stats=[(TITLES[key], [run.best.get(key) for run in runs]) for key in TITLES],
        classes=[(key[3:], [run.best.get(key) for run in runs]) for key in classes],
        facts=differing_facts(runs),
    )
    return _write(path, page)


def training_curves(run: Run) -> dict[str, tuple[str, Figure]]:
    """Titles and figures of loss, learning rate and AP, as far as the run has them."""
    curves: dict[str, tuple[str, Figure]] = {}
    x = 'epoch' if run.by_epoch else 'iteration'
    if run.train:
        losses = {name.removeprefix('loss_'): run.column(run.train, 'iter', name) for name in run.loss_names}
        curves['loss'] = ('Loss and its parts', line_figure(losses, 'iteration', 'loss', log=True))
    ap = {'AP': 'mAP', 'AP50': 'mAP_50', 'AP75': 'mAP_75'}
    if any('mAP' in record for record in run.val):
        lines = {name: run.column(run.val, 'step', key) for name, key in ap.items()}
        curves['ap'] = ('AP in validation', line_figure(lines, x, 'AP'))
    if run.train:
        rate = {'lr': run.column(run.train, 'iter', 'lr')}
        curves['lr'] = ('Learning rate', line_figure(rate, 'iteration', 'learning rate'))
    return curves


def commands(run: Run) -> list[tuple[str, str]]:
    """How to go on, to evaluate, to predict and to export, as shell commands for this run."""
    config = next(iter(sorted(run.work_dir.glob('*.py'))), 'CONFIG')
    weights = checkpoint(run) or 'CHECKPOINT'
    folder = run.work_dir
    predictions, model = folder / 'predictions', folder / 'model.onnx'
    lines = {
        'Go on with the training': ('train.py', config, '--work-dir', folder, '--resume'),
        'Evaluate': ('test.py', config, weights, '--work-dir', folder),
        'Predict': ('predict.py', config, weights, 'IMAGES', '--out', predictions),
        'Export': ('export.py', config, weights, '--format', 'onnx', '--out', model),
        'Renew this page': ('report.py', folder),
    }
    return [
        (title, shlex.join(['python', f'tools/{tool}', *(shown_path(part) for part in parts)]))
        for title, (tool, *parts) in lines.items()
    ]


def checkpoint(run: Run) -> Optional[Path]:
    """The run's best checkpoint, else its last, if it is there."""
    best = sorted(run.work_dir.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    if best:
        return best[-1]
    pointer = run.work_dir / 'last_checkpoint'
    last = run.work_dir / Path(pointer.read_text().strip()).name if pointer.is_file() else None
    return last if last and last.is_file() else None


def unique_names(runs: Sequence[Run]) -> list[str]:
    """A short name for each: the config's, or the path's last parts where that would not tell them apart."""
    for depth in range(5):
        names = ['/'.join(run.work_dir.resolve().parts[-depth:]) if depth else run.name for run in runs]
        if len(set(names)) == len(names):
            break
    return names


def differing_facts(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """What the model cards say, a row per fact; facts that all runs share are left out, except for sizes."""
    facts = {
        'parameters': lambda card: count(card.get('params')),
        'MACs': lambda card: count(card.get('macs')),
        'latency': lambda card: f'{card["latency_ms"]:.1f} ms' if 'latency_ms' in card else '-',
        'backbone': lambda card: card.get('backbone', '-'),
        'input': lambda card: 'x'.join(map(str, card.get('input_size', ['-']))),
        'batch size': lambda card: str(card.get('batch_size', '-')),
        'optimizer': lambda card: card.get('optimizer', '-'),
        'training images': lambda card: str(card.get('train', {}).get('images', '-')),
        'validation set': lambda card: card.get('val', {}).get('annotations', '-'),
        'start': lambda card: card.get('started_from') or 'scratch or backbone weights',
        'seed': lambda card: str(card.get('seed', '-')),
        'device': lambda card: card.get('device', '-'),
        'revision': lambda card: card.get('revision') or '-',
    }
    rows = [(name, [tell(run.card) for run in runs]) for name, tell in facts.items()]
    return [row for i, row in enumerate(rows) if i < 3 or len(set(row[1])) > 1]


def number(value: Optional[float], digits: int = 3) -> str:
    """For a cell; a dash for what is not known."""
    return f'{value:.{digits}f}' if isinstance(value, (int, float)) and value >= 0 else '-'


def count(value: Optional[int]) -> str:
    """Parameters or multiply-adds: 4.35 M, 0.79 G."""
    if not isinstance(value, int):
        return '-'
    return f'{value / 1e9:.3g} G' if value >= 1e8 else f'{value / 1e6:.3g} M'


def duration(seconds: float) -> str:
    """Hours, minutes, seconds."""
    return str(timedelta(seconds=int(seconds)))


def tally(counted: int, state: str) -> str:
    """Boxes of one of the ``STATES``: 3 found, 1 false alarm."""
    return f'{counted} {"false alarm" if state == FALSE and counted == 1 else STATES[state]}'


def breakable(path: str) -> Markup:
    """A path that a browser breaks between its parts, not inside a name."""
    return Markup('/<wbr>').join(path.split('/'))


def _over(runs: Sequence[Run], names: Sequence[str], part: str, x: str, y: str) -> Mapping:
    return {name: run.column(getattr(run, part), x, y) for name, run in zip(names, runs)}


def _svgs(figures: dict[str, tuple[str, Figure]]) -> dict[str, tuple[str, Markup]]:
    return {name: (title, Markup(to_svg(figure, title))) for name, (title, figure) in figures.items()}


def _pictures(run: Run) -> dict[str, list[dict]]:
    """Pictures by group, with their content as a data URL."""
    groups = {}
    for group, records in ((run.details or {}).get('pictures') or {}).items():
        groups[group] = []
        for record in records:
            path = run.pictures / record['picture']
            if path.is_file():
                data = base64.b64encode(path.read_bytes()).decode()
                name = Path(record['image']).name
                groups[group].append({**record, 'name': name, 'data': f'data:image/jpeg;base64,{data}'})
    return groups


def _template(name: str):
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name('templates')), autoescape=True, trim_blocks=True
    )
    environment.filters.update(number=number, count=count, duration=duration, tally=tally, breakable=breakable)
    environment.globals.update(colors=COLORS, states=STATES, titles=TITLES)
    return environment.get_template(name)


def _write(path: Path, page: str) -> Path:
    """Whole or not at all: a reader may reload the page at any time."""
    part = path.with_suffix('.html.part')
    part.write_text(page, encoding='utf-8')
    part.replace(path)
    return path
