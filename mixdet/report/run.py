"""What a training left in its work dir."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

from mixdet.errors import UserError
from mixdet.evaluation.coco import STATS
from mixdet.evaluation.metric import CLASS_SUFFIX
from mixdet.evaluation.results import FOLDER as RESULTS
from mixdet.report.evaluation import FILE as DETAILS

FOLDER = 'report'  # in the work dir: the report's data, figures and pictures
STATE = 'run.json'
RUNNING, FINISHED, STOPPED = 'running', 'finished', 'stopped'


@dataclass
class Run:
    """A training.

    Args:
        work_dir: its folder.
        name: the config's name.
        train: a record per log interval: ``iter``, ``epoch``, ``lr``, ``loss`` and its parts.
        val: a record per validation: ``step`` (epoch or iteration) and the metrics by their short names.
        state: what ``ReportHook`` wrote: ``status``, ``epoch``, ``max_epochs``, ``card`` and more; may be empty.
        details: of an evaluation, as ``write_details`` wrote them, if there is one.
        pictures: folder of its pictures.
        evaluated: what was evaluated for ``details``.
    """

    work_dir: Path
    name: str
    train: list[dict] = field(default_factory=list)
    val: list[dict] = field(default_factory=list)
    state: dict = field(default_factory=dict)
    details: Optional[dict] = None
    pictures: Optional[Path] = None
    evaluated: str = ''

    @property
    def card(self) -> dict:
        """The model card; may be empty."""
        return self.state.get('card', {})

    @property
    def by_epoch(self) -> bool:
        """Whether validations are counted in epochs."""
        return self.state.get('by_epoch', True)

    @property
    def last(self) -> dict:
        """The last validation; may be empty."""
        return self.val[-1] if self.val else {}

    @property
    def best(self) -> dict:
        """The validation of highest AP; may be empty."""
        return max(self.val, key=lambda record: record.get('mAP', -1), default={})

    @property
    def loss_names(self) -> list[str]:
        """``loss`` and its parts."""
        parts = {key for record in self.train for key in record if key.startswith('loss_') or '.loss' in key}
        return ['loss', *sorted(parts)] if self.train else []

    def column(self, records: list[dict], x: str, y: str) -> tuple[list[float], list[float]]:
        """The values of ``y`` over those of ``x`` where a record has both."""
        pairs = [(record[x], record[y]) for record in records if x in record and y in record]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def read_run(work_dir: Union[str, Path]) -> Run:
    """The training in ``work_dir``, over all the times that it was resumed.

    Raises:
        UserError: if there is no such folder, no training in it, or a file that cannot be read.
    """
    work_dir = Path(work_dir)
    if not work_dir.is_dir():
        raise UserError(f'work dir {work_dir} does not exist; give the folder that tools/train.py wrote into')
    train, val = _read_scalars(work_dir)
    state = _read_json(work_dir / FOLDER / STATE) or {}
    if not (train or val or state):
        raise UserError(f'work dir {work_dir} holds no training; give a folder that tools/train.py wrote into')
    config = next(iter(sorted(work_dir.glob('*.py'))), work_dir)
    run = Run(work_dir, state.get('card', {}).get('name') or config.stem, train, val, state)
    _find_details(run)
    return run


def write_csv(run: Run, path: Path) -> None:
    """A line per log interval and per validation, in the order of training."""
    losses = run.loss_names
    metrics = list(dict.fromkeys(key for record in run.val for key in record if key not in ('step', 'time')))
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, ['kind', 'epoch', 'iter', 'lr', *losses, *metrics], lineterminator='\n')
        writer.writeheader()
        for record in run.train:
            writer.writerow({'kind': 'train', **{key: record.get(key) for key in ('epoch', 'iter', 'lr', *losses)}})
        for record in run.val:
            step = {'epoch' if run.by_epoch else 'iter': record['step']}
            writer.writerow({'kind': 'val', **step, **{key: record.get(key) for key in metrics}})


def _read_scalars(work_dir: Path) -> tuple[list[dict], list[dict]]:
    """Records of training and of validation; a resumed or repeated part replaces what it repeats."""
    train: list[dict] = []
    val: list[dict] = []
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        records = [record for line in path.read_text().splitlines() if (record := _parse(line, path))]
        trained = [record for record in records if 'loss' in record or 'lr' in record]
        validated = [_short(record) for record in records if record not in trained]
        if trained:  # what it goes on from is kept
            unit = 'epoch' if 'epoch' in trained[0] else 'iter'
            train = [record for record in train if record['iter'] < trained[0]['iter']]
            val = [record for record in val if record['step'] < trained[0][unit]]
        train += trained
        val += validated
    return train, val


def _parse(line: str, path: Path) -> Optional[dict]:
    try:
        record = json.loads(line)
    except ValueError as error:
        if line.strip().endswith('}'):
            raise UserError(f'{path} is not a log of MMEngine ({error}); remove it') from error
        return None  # cut off by a kill
    return record if isinstance(record, dict) else None


def _short(record: dict) -> dict:
    """A validation's record under short names: ``mAP`` and so on, AP of classes as ``AP <class>``."""
    short = {}
    for key, value in record.items():
        name = key.rpartition('bbox_')[2] if 'bbox_' in key else key
        if key.endswith(CLASS_SUFFIX):
            name = f'AP {key.partition("/")[2].removesuffix(CLASS_SUFFIX)}'
        if name not in ('data_time', 'time'):
            short[name] = value
    return short


def _find_details(run: Run) -> None:
    """Those of the last validation, else of the newest evaluation by tools/test.py."""
    places = [run.work_dir / FOLDER / DETAILS]
    places += sorted(run.work_dir.glob(f'{RESULTS}/*/{DETAILS}'), key=lambda path: -path.stat().st_mtime)
    for path in places:
        run.details = _read_json(path)
        if run.details:
            run.pictures = path.parent
            when = f'{"epoch" if run.by_epoch else "iteration"} {run.last.get("step", "?")}'
            own = path.parent.name == FOLDER
            run.evaluated = f'Validation after {when}' if own else f'Evaluation of {path.parent.name} by tools/test.py'
            return


def _read_json(path: Path) -> Optional[dict]:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f'{path} is cut off or not JSON ({error}); remove it') from error
    return content


def coco_numbers(record: dict) -> dict[str, float]:
    """Those of the twelve COCO numbers that ``record`` has."""
    return {name: record[name] for name in STATS if name in record}
