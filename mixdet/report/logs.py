"""The logs that a training left in its work dir, one for each start, put together into one history."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Optional, Union

from mixdet.errors import UserError
from mixdet.evaluation.numbers import CocoNumbers

RESUMED = 'resume = True'  # in the config that MMEngine writes beside a log


class Validation(NamedTuple):
    """The ``numbers`` of a validation after epoch or iteration ``step``."""

    step: int
    numbers: CocoNumbers


@dataclass
class Log:
    """What one start of a training logged: ``name`` of its folder, records of training and validations as they came,
    and whether it continued an earlier one (None where that is not known).
    """

    name: str
    records: list[Union[dict, Validation]] = field(default_factory=list)
    resumed: Optional[bool] = None

    @property
    def steps(self) -> list[float]:
        """The iterations of its records of training."""
        return [record['iter'] for record in self.records if isinstance(record, dict)]

    @property
    def first(self) -> float:
        """Its first iteration; infinite if it only validated."""
        return next(iter(self.steps), float('inf'))

    @property
    def last(self) -> float:
        """Its last iteration; 0 if it only validated."""
        return next(reversed(self.steps), 0)


def history(logs: Iterable[Log]) -> tuple[list[dict], list[Validation]]:
    """Records of the training and its validations from ``read_logs``, in ascending order.

    What a later part did again replaces what was before.
    """
    train: list[dict] = []
    val: dict[int, Validation] = {}
    for record in (record for log in logs for record in log.records):
        if isinstance(record, Validation):
            val[record.step] = record
            continue
        if train and record['iter'] <= train[-1]['iter']:  # resumed: what came later in the part before is void
            train = [earlier for earlier in train if earlier['iter'] < record['iter']]
            reached = record['epoch' if 'epoch' in record else 'iter']
            val = {step: validation for step, validation in val.items() if step < reached}
        train.append(record)
    return train, [val[step] for step in sorted(val)]


def read_logs(work_dir: Path, parts: Sequence[str] = ()) -> list[Log]:
    """The logs of the training that was begun last, in the order they were written, without empty ones.

    Args:
        work_dir: the folder.
        parts: names of the folders of the logs that belong to the training, in order, as far as that was noted.
            Without it the folders' names decide, which are dates, unless the clock or its time zone was changed in
            between: then their iterations do.

    Raises:
        UserError: if a log is not one of MMEngine.
    """
    logs = [_read(path) for path in sorted(work_dir.glob('*/vis_data/scalars.json'))]
    return _in_order([log for log in logs if log.records], parts)


def _in_order(logs: list[Log], parts: Sequence[str]) -> list[Log]:
    """Those of ``logs`` (by name) that belong to the training that was begun last, in the order they were written."""
    noted = {log.name: log for log in logs if log.name in set(parts)}
    if noted:
        later = [log for log in logs if log.name > max(noted) and log.resumed is not False]  # without our hook
        return [noted[name] for name in parts if name in noted] + later
    earliest = min((log.first for log in logs), default=0)
    begun = [i for i, log in enumerate(logs) if (log.first == earliest if log.resumed is None else not log.resumed)]
    if len(begun) > 1:
        logs = logs[begun[-1] :]
    reached, misled = 0.0, len(begun) == 1 and begun != [0]
    for log in logs:
        misled = misled or (bool(log.steps) and log.first > reached + _interval(log))  # something before it is missing
        reached = max(reached, log.last)
    return sorted(logs, key=lambda log: (log.resumed is not False, log.first)) if misled else logs


def _interval(log: Log) -> float:
    """Iterations between two records; the first record's own number if there is but one."""
    return max((after - before for before, after in zip(log.steps, log.steps[1:])), default=log.first)


def _read(path: Path) -> Log:
    log = Log(path.parent.parent.name)
    try:
        text = path.read_text(encoding='utf-8', errors='replace')
        config = path.with_name('config.py')
        if config.is_file():
            log.resumed = RESUMED in config.read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error
    for line in text.splitlines():
        record = _parse(line, path)
        if record is None:
            continue
        if _is_train(record):
            log.records.append(record)
        else:
            metrics = {key: value for key, value in record.items() if key not in ('step', 'time', 'data_time')}
            log.records.append(Validation(record['step'], CocoNumbers.from_metrics(metrics)))
    return log


def _is_train(record: dict) -> bool:
    return 'loss' in record or 'lr' in record


def _parse(line: str, path: Path) -> Optional[dict]:
    try:
        record = json.loads(line)
        record['iter' if _is_train(record) else 'step'] + 0
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if line.strip().endswith('}'):
            raise UserError(f'{path} is not a log of MMEngine ({type(error).__name__}: {error}); remove it') from error
        return None  # cut off by a kill
    return record
