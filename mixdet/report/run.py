"""What a training left in its work dir."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

from mixdet.engine.atomic import atomic_path, check_ours
from mixdet.errors import UserError
from mixdet.evaluation.numbers import CocoNumbers
from mixdet.evaluation.results import RESULTS_FOLDER
from mixdet.report.detail_files import DETAILS_FILE
from mixdet.report.logs import Validation, history, read_logs
from mixdet.text import csv_cell

REPORT_FOLDER = 'report'  # in the work dir: the report's data, figures and pictures
STATE_FILE = 'run.json'  # in that folder


@dataclass
class TrainingRun:
    """A training.

    Args:
        work_dir: its folder.
        name: the config's name.
        train: a record per log interval: ``iter``, ``epoch``, ``lr``, ``loss`` and its parts.
        val: the validations.
        state: what ``ReportHook`` wrote: ``status``, ``epoch``, ``max_epochs``, ``card`` and more; may be empty.
        details: details of an evaluation, as ``write_details`` wrote them, if there are any.
        pictures: folder of its pictures.
        evaluated: what was evaluated for ``details``, for the page.
        notes: files that could not be read and were left out, one line each.
    """

    work_dir: Path
    name: str
    train: list[dict] = field(default_factory=list)
    val: list[Validation] = field(default_factory=list)
    state: dict = field(default_factory=dict)
    details: Optional[dict] = None
    pictures: Optional[Path] = None
    evaluated: str = ''
    notes: list[str] = field(default_factory=list)

    @property
    def card(self) -> dict:
        """The model card; may be empty."""
        return self.state.get('card', {})

    @property
    def by_epoch(self) -> bool:
        """Whether training and validations are counted in epochs."""
        return self.state.get('by_epoch', True)

    @property
    def unit(self) -> str:
        """What validations are counted in."""
        return 'epoch' if self.by_epoch else 'iteration'

    @property
    def last_validation(self) -> Optional[Validation]:
        """The last validation, if there was one."""
        return self.val[-1] if self.val else None

    @property
    def best_validation(self) -> Optional[Validation]:
        """The validation of highest AP, if there was one; of equals the first."""
        return max(self.val, key=lambda validation: _known(validation.numbers.ap), default=None)

    @property
    def loss_names(self) -> list[str]:
        """``loss`` and its parts."""
        parts = {key for record in self.train for key in record if key.startswith('loss_') or '.loss' in key}
        return ['loss', *sorted(parts)] if self.train else []

    def train_curve(self, key: str) -> tuple[list[float], list[float]]:
        """Iterations, and the value of ``key`` at each, where it was logged."""
        records = [record for record in self.train if key in record]
        return [record['iter'] for record in records], [record[key] for record in records]

    def iterations(self, steps: Sequence[float]) -> list[float]:
        """The iterations after which the validations ``steps`` were made, to compare with runs that count these."""
        if not self.by_epoch:
            return list(steps)
        if self.state.get('max_epochs') and self.state.get('max_iters'):
            return [step * self.state['max_iters'] / self.state['max_epochs'] for step in steps]
        last = {record['epoch']: record['iter'] for record in self.train if 'epoch' in record}
        return [last.get(step, float('nan')) for step in steps]

    def val_curve(self, stat: str, iou_type: str = 'bbox') -> tuple[list[float], list[float]]:
        """Epochs or iterations, and a COCO number (``mAP`` ...) after each, where it was evaluated."""
        stats = [(step, numbers.by_type[iou_type].stats) for step, numbers in self.val if iou_type in numbers.by_type]
        known = [(step, values[stat]) for step, values in stats if stat in values]
        return [step for step, _ in known], [value for _, value in known]


def read_training_run(work_dir: Union[str, Path]) -> TrainingRun:
    """The training in ``work_dir``, with all the parts that it was resumed in.

    Raises:
        UserError: if there is no such folder, no training in it, or a file that cannot be read.
    """
    work_dir = Path(work_dir)
    if not work_dir.is_dir():
        raise UserError(f'work dir {work_dir} does not exist; give the folder that tools/train.py wrote into')
    notes: list[str] = []
    state = _read_json(work_dir / REPORT_FOLDER / STATE_FILE, notes)
    train, val = history(read_logs(work_dir, state.get('logs') or ()))
    if not (train or val or state):
        raise UserError(f'work dir {work_dir} holds no training; give a folder that tools/train.py wrote into')
    config = next(iter(sorted(work_dir.glob('*.py'))), work_dir)
    run = TrainingRun(work_dir, state.get('card', {}).get('name') or config.stem, train, val, state, notes=notes)
    if train and 'seconds' not in state:
        run.state = {**_state_from_log(train), **state}
    _find_details(run)
    return run


def read_state(work_dir: Union[str, Path]) -> dict:
    """What ``ReportHook`` wrote of the training in ``work_dir``; where that is lost, what its logs tell.

    ``logs`` are the names of their folders, in order. Empty if there is neither.
    """
    work_dir = Path(work_dir)
    state = _read_json(work_dir / REPORT_FOLDER / STATE_FILE, [])
    logs = read_logs(work_dir, state.get('logs') or ())
    train, _ = history(logs)
    return {**(_state_from_log(train) if train else {}), **state, 'logs': [log.name for log in logs]}


def write_results_csv(run: TrainingRun, path: Path) -> None:
    """A line per log interval and one per validation, in the order of training.

    Raises UserError if ``path`` is a file that mixdet did not write.
    """
    check_ours(path, 'kind,epoch,iter,')
    losses = run.loss_names
    validations = [(step, _csv_columns(numbers)) for step, numbers in run.val]
    metrics = list(dict.fromkeys(key for _, columns in validations for key in columns))
    keys = ['kind', 'epoch', 'iter', 'lr', *losses, *metrics]
    with atomic_path(path) as partial, partial.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, keys, lineterminator='\n')
        writer.writerow({key: csv_cell(key) for key in keys})
        for record in run.train:
            writer.writerow({'kind': 'train', **{key: record.get(key) for key in ('epoch', 'iter', 'lr', *losses)}})
        for step, columns in validations:
            writer.writerow({'kind': 'val', 'epoch' if run.by_epoch else 'iter': step, **columns})


def _csv_columns(numbers: CocoNumbers) -> dict[str, float]:
    """``mAP`` ... and ``AP <class>``; of masks ``segm_mAP`` ... and ``segm_AP <class>``."""
    columns: dict[str, float] = {}
    for iou_type, of_type in numbers.by_type.items():
        mark = '' if iou_type == 'bbox' else f'{iou_type}_'
        columns.update({f'{mark}{name}': value for name, value in of_type.stats.items()})
        columns.update({f'{mark}AP {name}': value for name, value in of_type.per_class.items()})
    return {**columns, **numbers.other}


def _known(ap: Optional[float]) -> float:
    return ap if ap is not None and ap >= 0 else -1.0


def _state_from_log(train: list[dict]) -> dict:
    """What a log tells of how far its training came."""
    seconds, before = 0.0, 0
    for record in train:
        seconds += (record['iter'] - before) * record.get('time', 0.0)  # the log has the mean of its interval
        before = record['iter']
    last = train[-1]
    return dict(by_epoch='epoch' in last, iter=last['iter'], epoch=last.get('epoch', 0), seconds=seconds)


def _find_details(run: TrainingRun) -> None:
    """Take those of the last validation, else of the newest evaluation by tools/test.py."""
    places = [run.work_dir / REPORT_FOLDER / DETAILS_FILE]
    places += sorted(run.work_dir.glob(f'{RESULTS_FOLDER}/*/{DETAILS_FILE}'), key=lambda path: -path.stat().st_mtime)
    for path in places:
        run.details = _read_json(path, run.notes) or None
        if run.details:
            run.pictures = path.parent
            own = path.parent.name == REPORT_FOLDER
            when = f'{run.unit} {run.last_validation.step if run.last_validation else "?"}'
            run.evaluated = f'Validation after {when}' if own else f'Evaluation of {path.parent.name} by tools/test.py'
            return


def _read_json(path: Path, notes: list[str]) -> dict:
    """The object in ``path``; empty if there is none. A file that a crash cut off is left out, with a note."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError, OSError) as error:
        notes.append(f'{path} is left out: it is cut off or not JSON ({error})')
        return {}
    if not isinstance(content, dict):
        notes.append(f'{path} is left out: it holds no JSON object')
        return {}
    return content
