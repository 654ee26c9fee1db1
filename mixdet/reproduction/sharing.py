"""Runs of a study shared by processes and machines: each is done once, and those of the dead are gone on with."""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from mixdet.engine.atomic import make_folder, write_new_text, write_text, writing
from mixdet.engine.lock import FolderLock, InUseError, is_held_elsewhere
from mixdet.errors import UserError
from mixdet.reproduction.run_results import CHOICES, json_text, read_json, read_run_result
from mixdet.reproduction.study import Run, Study
from mixdet.text import print

CLAIM = '.run.lock'  # in the work dir of a run; its training has a lock of its own
RESULTS = 'results'  # in the work dir of the study
POLL = 2.0  # s between two looks at what others do

Settings = Mapping[str, Any]


class Progress:
    """What has been done in a work dir of a study, by whichever process.

    Args:
        study: the study.
        work_dir: its folder, on a disk that all processes share.
        invocation: a name of the command that was started. What fails is tried once by each.
    """

    def __init__(self, study: Study, work_dir: Path, invocation: str) -> None:
        self.study, self.work_dir, self.invocation = study, work_dir, invocation

    def folder(self, run: Run) -> Path:
        """The work dir of ``run``."""
        return self.work_dir / run.name

    def beside(self, run: Run, suffix: str) -> Path:
        """The file beside the work dir of ``run`` that is called like it, with ``suffix``."""
        return self.work_dir / f'{run.name}{suffix}'

    def result_file(self, run: Run) -> Path:
        """Where the result of ``run`` is written."""
        return self.work_dir / RESULTS / f'{run.name}.json'

    def is_done(self, run: Run) -> bool:
        """Whether ``run`` has a result."""
        return self.result_file(run).is_file()

    def has_failed(self, run: Run) -> bool:
        """Whether ``run`` has failed in this invocation."""
        try:
            return self.invocation in self.beside(run, '.failures').read_text(encoding='utf-8').split()
        except FileNotFoundError:
            return False

    def note_failure(self, run: Run) -> None:
        """Keep the processes of this invocation from trying ``run`` again."""
        path = self.beside(run, '.failures')
        before = path.read_text(encoding='utf-8') if path.is_file() else ''
        make_folder(path.parent)
        with writing(path):
            write_text(path, f'{before}{self.invocation}\n')

    def settings(self, run: Run) -> Optional[Settings]:
        """The variables of the schedule for ``run``; None as long as they have not been chosen.

        Raises:
            UserError: if nothing can be chosen, since every run that it depends on has failed.
        """
        if run.settings is not None or self.study.choice is None:
            return run.settings or {}
        path = self.work_dir / RESULTS / CHOICES / f'{run.family}.json'
        if not path.is_file():
            tried = self.study.choices([run.family])
            done = [one for one in tried if self.is_done(one)]
            if not all(self.has_failed(one) for one in tried if one not in done):
                return None
            if not done:
                raise UserError('the runs by which its settings are chosen have failed')
            _choose(done, [read_run_result(self.result_file(one)).ap for one in done], path)
        return read_json(path)['chosen']


def _choose(runs: Sequence[Run], aps: Sequence[float], path: Path) -> None:
    """Write the best settings: of the highest mean AP on the images held out, the first of several."""
    by_settings: list[tuple[Settings, list[float]]] = []
    for run, ap in zip(runs, aps):
        known = next((values for settings, values in by_settings if settings == run.settings), None)
        if known is None:
            by_settings.append((run.settings or {}, [ap]))
        else:
            known.append(ap)
    chosen = max(by_settings, key=lambda item: statistics.fmean(item[1]))[0]
    tried = [dict(settings=settings, ap=values) for settings, values in by_settings]
    make_folder(path.parent)
    try:
        write_new_text(
            path,
            json_text(dict(family=runs[0].family, row=runs[0].row, data=runs[0].data, chosen=chosen, tried=tried)),
        )
    except UserError:
        if not path.is_file():  # else another process was first, and its choice counts
            raise


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Claims a run by its ``folder``, which is made; yields whether it is ours. A dead owner's claim is taken over.

    An owner on another machine is watched for a sign of life, which takes up to 10 s, or a minute if there is none.
    """
    make_folder(folder)
    lock = FolderLock(folder, lambda _: None, CLAIM)
    try:
        lock.acquire()
    except InUseError:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def share(progress: Progress, runs: Sequence[Run], do: Callable[[Run, Settings], None]) -> None:
    """Do the runs that are left, in their order, each unless another process does it.

    Waits for others only where settings depend on what they do. Returns when every run is done, has failed or is being
    done by a living process, or when the process that started this one is gone.

    Args:
        progress: what has been done.
        runs: all of them.
        do: does a run with these settings: writes its result, or notes its failure.
    """
    parent = os.getppid()
    while os.getppid() == parent:
        left = [run for run in runs if not progress.is_done(run) and not progress.has_failed(run)]
        ready = list(_ready(progress, left))
        # finding out whether an owner on another machine is alive takes time: those come last
        for run, settings in sorted(ready, key=lambda item: is_held_elsewhere(progress.folder(item[0]), CLAIM)):
            with claim(progress.folder(run)) as ours:
                if ours and not progress.is_done(run):
                    do(run, settings)
                    break
        else:
            if len(ready) == len(left):
                return
            time.sleep(POLL)


def _ready(progress: Progress, runs: Sequence[Run]) -> Iterator[tuple[Run, Settings]]:
    """The runs whose settings are known."""
    for run in runs:
        try:
            settings = progress.settings(run)
        except UserError as error:
            print(f'{run.name}: {error}')
            progress.note_failure(run)
            settings = None
        if settings is not None:
            yield run, settings
