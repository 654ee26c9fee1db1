"""The page of a training, a single HTML file that refers to no other."""

import re
import shlex
from pathlib import Path
from typing import Optional, Union

from matplotlib.figure import Figure

from mixdet.errors import UserError
from mixdet.evaluation.numbers import CocoNumbers, ap_title
from mixdet.report.card import shown_path
from mixdet.report.detail_files import evaluation_figures, frequent_confusions
from mixdet.report.figures import classes_figure, line_figure, save_png, sizes_figure
from mixdet.report.logs import Validation
from mixdet.report.rendering import shown_pictures, svgs, write_page
from mixdet.report.run import REPORT_FOLDER, TrainingRun, read_training_run, write_results_csv

PAGE_FILE = 'report.html'
CSV_FILE = 'results.csv'
CLASS_COLUMNS = {
    'boxes': 'boxes', 'AP': 'AP', 'AP50': 'AP50', 'AP75': 'AP75', 'AP_small': 'small', 'AP_medium': 'medium',
    'AP_large': 'large', 'AR': 'AR', 'F1': 'best F1', 'score': 'at score', 'mask_AP': 'mask AP',
}  # fmt: skip
AP_FIGURES = {'bbox': 'ap', 'segm': 'mask_ap'}
AP_CURVES = {'AP': 'mAP', 'AP50': 'mAP_50', 'AP75': 'mAP_75'}
NO_VALIDATION = Validation(0, CocoNumbers())


def write_report(work_dir: Union[str, Path]) -> Path:
    """Write ``report.html``, ``results.csv`` and the curves as PNG files into ``work_dir``; returns the page's path.

    Raises UserError if there is no training in ``work_dir``, or a link in it leads to where the page's files would lie.
    """
    run = read_training_run(work_dir)
    figures = run.work_dir / REPORT_FOLDER
    if not _is_inside(figures, run.work_dir):
        raise UserError(f'{figures} is a link to another folder; remove it')
    write_results_csv(run, run.work_dir / CSV_FILE)
    curves, data = training_curves(run), data_figures(run)
    figures.mkdir(exist_ok=True)
    for name, (_, figure) in {**curves, **{f'data_{name}': figure for name, figure in data.items()}}.items():
        save_png(figure, figures / f'{name}.png')
    details = run.details or {}
    known = {key for row in details.get('classes', ()) for key in row}
    return write_page(
        'run.html',
        run.work_dir / PAGE_FILE,
        title=run.name,
        run=run,
        last=run.last_validation or NO_VALIDATION,
        best=run.best_validation or NO_VALIDATION,
        curves=svgs(curves),
        evaluation=svgs(evaluation_figures(details)) if details else {},
        details=details,
        class_columns={key: title for key, title in CLASS_COLUMNS.items() if key in known},
        confusions=frequent_confusions(details) if details else [],
        data_figures=svgs(data),
        pictures=_pictures(run),
        config=_config_text(run),
        commands=commands(run),
    )


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
        curves[AP_FIGURES[iou_type]] = (
            f'{capital(title)} in validation',
            line_figure(lines, run.unit, title, steps=True),
        )
    if run.train:
        rate = {'lr': run.train_curve('lr')}
        curves['lr'] = ('Learning rate', line_figure(rate, 'iteration', 'learning rate'))
    return curves


def data_figures(run: TrainingRun) -> dict[str, tuple[str, Figure]]:
    """Titles and figures of the training set's statistics, if the run has them."""
    data = run.state.get('data')
    if not data or not data['boxes']:
        return {}
    return dict(
        classes=('Boxes of each class', classes_figure(data['classes'])),
        sizes=('Sizes of the boxes', sizes_figure(data['sides'])),
    )


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
    """The run's best checkpoint, of several the one of the latest epoch or iteration, else its last, if it is there."""
    best = max(run.work_dir.glob('best_*.pth'), key=_number_in_name, default=None)
    if best:
        return best
    try:
        noted = (run.work_dir / 'last_checkpoint').read_text(encoding='utf-8', errors='surrogateescape').strip()
        last = run.work_dir / Path(noted).name
        return last if last.is_file() else None
    except (OSError, ValueError):  # none, or one that holds no path
        return None


def capital(title: str) -> str:
    """``title`` with its first letter as a capital."""
    return title[:1].upper() + title[1:]


def _number_in_name(path: Path) -> tuple[int, str]:
    """The number that a file's name ends with; a date of the file would not outlast a copy."""
    number = re.search(r'\d+$', path.stem)
    return int(number[0]) if number else -1, path.name


def _pictures(run: TrainingRun) -> dict[str, list[dict]]:
    """Pictures by group, for the page."""
    groups = {}
    if run.details is not None and run.pictures is not None:
        for group, records in (run.details.get('pictures') or {}).items():
            groups[group] = shown_pictures(records, run.pictures)
    groups['augmented'] = shown_pictures(run.state.get('augmented') or [], run.work_dir / REPORT_FOLDER)
    return groups


def _config_text(run: TrainingRun) -> str:
    """The training's config: of its card, else the file in the work dir."""
    if run.card.get('config'):
        return run.card['config']
    file = next(iter(sorted(run.work_dir.glob('*.py'))), None)
    if not file or not _is_inside(file, run.work_dir):
        return ''
    return file.read_text(encoding='utf-8', errors='replace')


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether ``path`` lies in ``folder``, and is no link, which in a stranger's folder may lead anywhere."""
    return path.resolve().is_relative_to(folder.resolve())
