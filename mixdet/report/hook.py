"""The hook that writes a run's report while it trains."""

import json
import time
from pathlib import Path
from typing import Optional

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mixdet.registry import HOOKS


@HOOKS.register_module()
class ReportHook(Hook):
    """Writes ``report.html``, ``results.csv`` and the folder ``report`` into the work dir.

    They are there from the start of a training, renewed after each validation, and complete after its end or when it
    breaks off. What cannot be written is warned of in one line; the training goes on.

    Args:
        samples: images of the validation set shown with ground truth and detections.
    """

    priority = 'LOWEST'  # after the checkpoint and the log were written

    def __init__(self, samples: int = 8) -> None:
        self.samples = samples
        self._state: Optional[dict] = None
        self._details = None

    def before_train(self, runner: Runner) -> None:
        """A first report: the model card."""
        self._start = time.time()
        self._guarded(runner, self._begin)

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Renew it, with the details of this validation."""
        if self._state:
            found = [getattr(metric, 'details', None) for metric in runner.val_loop.evaluator.metrics]
            self._details = next(filter(None, found), None)
            if runner.iter < runner.max_iters:  # else after_train follows
                self._guarded(runner, self._write)

    def after_train(self, runner: Runner) -> None:
        """The last report."""
        if self._state:
            self._guarded(runner, self._write, True)

    def after_run(self, runner: Runner) -> None:
        """The last report of a training that broke off."""
        if self._state and self._state['status'] == 'running':
            self._guarded(runner, self._write, True)

    @master_only
    def _guarded(self, runner: Runner, write, *args) -> None:
        try:
            write(runner, *args)
        except Exception as error:  # a full disk or a strange data set must not end a training
            runner.logger.warning(f'The report was not written: {type(error).__name__}: {error}')

    def _begin(self, runner: Runner) -> None:
        from mixdet.report.card import describe
        from mixdet.report.evaluation import FILE
        from mixdet.report.run import FOLDER, STATE

        folder = Path(runner.work_dir, FOLDER)
        seconds = 0.0
        if runner.iter:  # resumed
            if (folder / STATE).is_file():
                seconds = json.loads((folder / STATE).read_text()).get('seconds', 0.0)
        else:
            (folder / FILE).unlink(missing_ok=True)  # of a training before
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        self._state = dict(card=describe(runner), by_epoch=by_epoch, before=seconds, status='running')
        self._write(runner)

    def _write(self, runner: Runner, end: bool = False) -> None:
        from mixdet.report.evaluation import write_details
        from mixdet.report.page import write_report
        from mixdet.report.run import FINISHED, FOLDER, RUNNING, STATE, STOPPED

        folder = Path(runner.work_dir, FOLDER)
        if self._details is not None:
            write_details(self._details, folder, self.samples)
            self._details = None
        ended = FINISHED if runner.iter >= runner.max_iters else STOPPED
        self._state.update(
            status=ended if end else RUNNING,
            epoch=runner.epoch,
            max_epochs=runner.max_epochs,
            iter=runner.iter,
            max_iters=runner.max_iters,
            seconds=self._state['before'] + time.time() - self._start,
            written=time.strftime('%Y-%m-%d %H:%M'),
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STATE).write_text(json.dumps(self._state) + '\n')
        page = write_report(runner.work_dir)
        if end:
            print(f'Report: {page}', flush=True)
