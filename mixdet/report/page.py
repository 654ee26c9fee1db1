"""The report's pages, each a single HTML file that refers to no other."""

import base64
import shlex
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Optional, Union

from jinja2 import Environment, FileSystemLoader, Template
from markupsafe import Markup
from matplotlib.figure import Figure

from mixdet.errors import UserError
from mixdet.evaluation.details import CONFUSED, FALSE_ALARM, FOUND, MISSED
from mixdet.evaluation.numbers import IOU_TYPES, STAT_TITLES, CocoNumbers, IouTypeNumbers, ap_title, format_number
from mixdet.report.card import shown_path
from mixdet.report.detail_files import evaluation_figures, frequent_confusions
from mixdet.report.figures import MATRIX, SERIES, line_figure, save_png, to_svg
from mixdet.report.pictures import COLORS
from mixdet.report.run import REPORT_FOLDER, TrainingRun, Validation, read_training_run, write_results_csv

PAGE_FILE = 'report.html'
CSV_FILE = 'results.csv'
CLASS_COLUMNS = {
    'boxes': 'boxes', 'AP': 'AP', 'AP50': 'AP50', 'AP75': 'AP75', 'AP_small': 'small', 'AP_medium': 'medium',
    'AP_large': 'large', 'AR': 'AR', 'F1': 'best F1', 'score': 'at score', 'mask_AP': 'mask AP',
}  # fmt: skip
AP_FIGURES = {'bbox': 'ap', 'segm': 'mask_ap'}
AP_CURVES = {'AP': 'mAP', 'AP50': 'mAP_50', 'AP75': 'mAP_75'}
NO_VALIDATION = Validation(0, CocoNumbers())
Rows = list[tuple[str, list[Optional[float]]]]  # of a table: its name, and a value for each run
STATES = {FOUND: 'found', CONFUSED: 'wrong class', MISSED: 'missed', FALSE_ALARM: 'false alarms'}


def write_report(work_dir: Union[str, Path]) -> Path:
    """Write ``report.html``, ``results.csv`` and the curves as PNG files into ``work_dir``; returns the page's path.

    Raises UserError if there is no training in ``work_dir``.
    """
    run = read_training_run(work_dir)
    write_results_csv(run, run.work_dir / CSV_FILE)
    curves = training_curves(run)
    figures = run.work_dir / REPORT_FOLDER
    figures.mkdir(exist_ok=True)
    for name, (_, figure) in curves.items():
        save_png(figure, figures / f'{name}.png')
    details = run.details or {}
    known = {key for row in details.get('classes', ()) for key in row}
    page = _template('run.html').render(
        title=run.name,
        run=run,
        last=run.last_validation or NO_VALIDATION,
        best=run.best_validation or NO_VALIDATION,
        curves=_svgs(curves),
        evaluation=_svgs(evaluation_figures(details)) if details else {},
        details=details,
        class_columns={key: title for key, title in CLASS_COLUMNS.items() if key in known},
        confusions=frequent_confusions(details) if details else [],
        pictures=_pictures(run),
        commands=commands(run),
    )
    return _write_page(run.work_dir / PAGE_FILE, page)


def write_comparison(runs: Sequence[TrainingRun], path: Path) -> Path:
    """Write a page that sets ``runs`` side by side to ``path``."""
    names = unique_names(runs)
    colors = {name: SERIES[i % len(SERIES)] for i, name in enumerate(names)}
    unit = 'epoch' if all(run.by_epoch for run in runs) else 'iteration'
    tables = comparison_tables(runs)
    curves = {}
    for iou_type in tables:
        title = ap_title(iou_type, tables)
        ap = {name: run.val_curve('mAP', iou_type) for name, run in zip(names, runs)}
        curves[AP_FIGURES[iou_type]] = (_capital(title), line_figure(ap, unit, title, legend=False))
    loss = {name: run.train_curve('loss') for name, run in zip(names, runs)}
    curves['loss'] = ('Loss', line_figure(loss, 'iteration', 'loss', log=True, legend=False))
    page = _template('compare.html').render(
        title=f'{len(runs)} runs',
        runs=dict(zip(names, runs)),
        colors=colors,
        curves=_svgs(curves),
        tables=tables,
        facts=differing_facts(runs),
    )
    return _write_page(path, page)


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


def training_curves(run: TrainingRun) -> dict[str, tuple[str, Figure]]:
    """Titles and figures of loss, AP and learning rate, as far as the run has them."""
    curves: dict[str, tuple[str, Figure]] = {}
    if run.train:
        losses = {name.removeprefix('loss_'): run.train_curve(name) for name in run.loss_names}
        curves['loss'] = ('Loss and its parts', line_figure(losses, 'iteration', 'loss', log=True))
    numbers = (run.last_validation or NO_VALIDATION).numbers
    for iou_type in numbers.by_type:
        title = ap_title(iou_type, numbers.by_type)
        lines = {label: run.val_curve(stat, iou_type) for label, stat in AP_CURVES.items()}
        curves[AP_FIGURES[iou_type]] = (f'{_capital(title)} in validation', line_figure(lines, run.unit, title))
    if run.train:
        rate = {'lr': run.train_curve('lr')}
        curves['lr'] = ('Learning rate', line_figure(rate, 'iteration', 'learning rate'))
    return curves


def commands(run: TrainingRun) -> list[tuple[str, str]]:
    """Shell commands that resume, evaluate, predict with and export this run."""
    config = next(iter(sorted(run.work_dir.glob('*.py'))), 'CONFIG')
    weights = best_checkpoint(run) or 'CHECKPOINT'
    folder = run.work_dir
    predictions, model = folder / 'predictions', folder / 'model.onnx'
    lines: dict[str, tuple[Union[str, Path], ...]] = {
        'Resume the training': ('train.py', config, '--work-dir', folder, '--resume'),
        'Evaluate': ('test.py', config, weights, '--work-dir', folder),
        'Predict': ('predict.py', config, weights, 'IMAGES', '--out', predictions),
        'Export': ('export.py', config, weights, '--format', 'onnx', '--out', model),
        'Update this page': ('report.py', folder),
    }
    return [
        (title, shlex.join(['python', f'tools/{tool}', *(shown_path(part) for part in parts)]))
        for title, (tool, *parts) in lines.items()
    ]


def best_checkpoint(run: TrainingRun) -> Optional[Path]:
    """The run's best checkpoint, else its last, if it is there."""
    best = sorted(run.work_dir.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    if best:
        return best[-1]
    pointer = run.work_dir / 'last_checkpoint'
    last = run.work_dir / Path(pointer.read_text().strip()).name if pointer.is_file() else None
    return last if last and last.is_file() else None


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
        'latency': lambda card: f'{card["latency_ms"]:.1f} ms' if 'latency_ms' in card else '-',
        'backbone': lambda card: card.get('backbone', '-'),
        'input': lambda card: 'x'.join(map(str, card.get('input_size', ['-']))),
        'batch size': lambda card: str(card.get('batch_size', '-')),
        'optimizer': lambda card: card.get('optimizer', '-'),
        'training images': lambda card: str(card.get('train', {}).get('images', '-')),
        'validation set': lambda card: card.get('val', {}).get('annotations', '-'),
        'loaded from': lambda card: card.get('started_from') or 'scratch or pretrained backbone',
        'seed': lambda card: str(card.get('seed', '-')),
        'device': lambda card: card.get('device', '-'),
        'revision': lambda card: card.get('revision') or '-',
    }
    rows = [(name, [tell(run.card) for run in runs]) for name, tell in facts.items()]
    return [row for i, row in enumerate(rows) if i < 3 or len(set(row[1])) > 1]


def format_count(value: Optional[int]) -> str:
    """Parameters or multiply-adds: 4.35 M, 0.79 G."""
    if not isinstance(value, int):
        return '-'
    return f'{value / 1e9:.3g} G' if value >= 1e8 else f'{value / 1e6:.3g} M'


def format_duration(seconds: float) -> str:
    """Hours, minutes, seconds."""
    return str(timedelta(seconds=int(seconds)))


def format_boxes(counted: int, state: str) -> str:
    """Boxes of one of the ``STATES``: 3 found, 1 false alarm."""
    return f'{counted} {"false alarm" if state == FALSE_ALARM and counted == 1 else STATES[state]}'


def breakable(path: str) -> Markup:
    """A path that a browser breaks between its parts, not inside a name."""
    return Markup('/<wbr>').join(path.split('/'))


def _capital(title: str) -> str:
    return title[:1].upper() + title[1:]


def _svgs(figures: dict[str, tuple[str, Figure]]) -> dict[str, tuple[str, Markup]]:
    return {name: (title, Markup(to_svg(figure, title))) for name, (title, figure) in figures.items()}  # noqa: S704  (escaped)


def _pictures(run: TrainingRun) -> dict[str, list[dict]]:
    """Pictures by group, with their content as a data URL."""
    groups: dict[str, list[dict]] = {}
    if run.details is None or run.pictures is None:
        return groups
    for group, records in (run.details.get('pictures') or {}).items():
        groups[group] = []
        for record in records:
            path = run.pictures / record['picture']
            if path.is_file():
                data = base64.b64encode(path.read_bytes()).decode()
                name = Path(record['image']).name
                groups[group].append({**record, 'name': name, 'data': f'data:image/jpeg;base64,{data}'})
    return groups


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name('templates')), autoescape=True, trim_blocks=True
    )
    environment.filters.update(
        number=format_number, count=format_count, duration=format_duration, boxes=format_boxes, breakable=breakable
    )
    environment.globals.update(
        colors=COLORS, states=STATES, titles=STAT_TITLES, iou_types=IOU_TYPES, ap_title=ap_title, matrix_classes=MATRIX
    )
    return environment.get_template(name)


def _write_page(path: Path, page: str) -> Path:
    """Write the page atomically: a reader may reload it at any time."""
    part = path.with_suffix('.html.part')
    part.write_text(page, encoding='utf-8')
    part.replace(path)
    return path
