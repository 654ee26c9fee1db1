"""The hook that writes the report of a training while it runs."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Optional

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mixdet.engine.atomic import remove_leftovers, write_text
from mixdet.errors import first_line
from mixdet.evaluation.details import Details
from mixdet.registry import HOOKS
from mixdet.text import print

RUNNING, FINISHED, STOPPED = 'running', 'finished', 'stopped'  # the status of a training


@HOOKS.register_module()
class ReportHook(Hook):
    """Writes ``report.html``, ``results.csv`` and the folder ``report`` into the work dir.

    They are there from the start of a training, are updated after each validation, and are complete after its end or
    when it is cut short. If they cannot be written, a warning of one line says why, and the training continues.

    Args:
        samples: images of the validation set shown with ground truth and detections, and images of the training set
            shown as they were augmented.
    """

    priority = 'LOWEST'  # after the checkpoint and the log were written

    def __init__(self, samples: int = 8) -> None:
        self.samples = samples
        self._state: dict = {}  # empty until a training has begun
        self._details: Optional[Details] = None
        self._start = self._seconds_before = 0.0

    def before_train(self, runner: Runner) -> None:
        """Write a first report: the model card."""
        self._start = time.monotonic()  # the clock may be changed meanwhile
        self._guarded(runner, self._begin)

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Update it with the details of this validation."""
        if self._state:
            found = [getattr(metric, 'details', None) for metric in runner.val_loop.evaluator.metrics]
            self._details = next(filter(None, found), None)
            if runner.iter < runner.max_iters:  # else after_train follows
                self._guarded(runner, self._update)

    def after_train(self, runner: Runner) -> None:
        """Write the final report."""
        if self._state:
            self._guarded(runner, self._end)

    def after_run(self, runner: Runner) -> None:
        """Write the final report of a training that was cut short."""
        if self._state.get('status') == RUNNING:
            self._guarded(runner, self._end)

    @master_only
    def _guarded(self, runner: Runner, write: Callable[[Runner], None]) -> None:
        try:
            write(runner)
        except Exception as error:  # a full disk or a strange data set must not end a training
            runner.logger.warning(f'The report was not written: {type(error).__name__}: {error}')

    # imported where they are used, because Matplotlib is slow to import

    def _begin(self, runner: Runner) -> None:
        from mixdet.report.card import model_card
        from mixdet.report.detail_files import DETAILS_FILE
        from mixdet.report.run import REPORT_FOLDER, read_state

        folder = Path(runner.work_dir, REPORT_FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        earlier = read_state(runner.work_dir) if runner.iter else {}
        if not runner.iter:
            (folder / DETAILS_FILE).unlink(missing_ok=True)  # of an earlier training
        self._seconds_before = earlier.get('seconds', 0.0)
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        self._state = dict(card=model_card(runner), by_epoch=by_epoch, status=RUNNING)
        if runner.iter:  # what a resumed training loads is its own checkpoint
            self._state['card'].pop('start', None)
        if 'start' in earlier.get('card', {}):
            self._state['card']['start'] = earlier['card']['start']
        before = [name for name in earlier.get('logs', ()) if name != runner.timestamp]
        self._state['logs'] = [*before, runner.timestamp]
        self._state.update(self._training_data(runner, folder))
        self._update(runner)

    def _training_data(self, runner: Runner, folder: Path) -> dict:
        """Statistics of the training set, and augmented samples of it, as far as it gives them out."""
        from mixdet.datasets.statistics import box_statistics
        from mixdet.report.samples import save_samples

        dataset = runner.train_dataloader.dataset
        found: dict = {}
        for name, find in (
            ('data', lambda: box_statistics(dataset)),
            ('augmented', lambda: save_samples(dataset, self.samples, runner.seed or 0, folder)),
        ):
            try:
                found[name] = find()
            except Exception as error:  # a data set of another kind, which the report can do without
                found[f'{name}_missing'] = f'{type(error).__name__}: {first_line(error)}'
        return found

    def _end(self, runner: Runner) -> None:
        self._state['status'] = FINISHED if runner.iter >= runner.max_iters else STOPPED
        print(f'Report: {self._update(runner)}', flush=True)

    def _update(self, runner: Runner) -> Path:
        from mixdet.report.detail_files import write_details
        from mixdet.report.page import write_report
        from mixdet.report.run import REPORT_FOLDER, STATE_FILE

        folder = Path(runner.work_dir, REPORT_FOLDER)
        if self._details is not None:
            write_details(self._details, folder, self.samples)
            self._details = None
        self._state.update(
            epoch=runner.epoch,
            max_epochs=runner.max_epochs,
            iter=runner.iter,
            max_iters=runner.max_iters,
            seconds=self._seconds_before + time.monotonic() - self._start,
            written=time.strftime('%Y-%m-%d %H:%M'),
        )
        write_text(folder / STATE_FILE, json.dumps(self._state) + '\n')
        return write_report(runner.work_dir)
