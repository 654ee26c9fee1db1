import json
from types import SimpleNamespace

import pytest

from mixdet.registry import HOOKS
from mixdet.report import card
from mixdet.report.hook import ReportHook

pytestmark = pytest.mark.slow


class Logger(list):
    warning = list.append


@pytest.fixture
def runner(work_dir, details, monkeypatch):
    """A training about to begin in the work dir of an earlier one."""
    known = json.loads((work_dir / 'report/run.json').read_text())['card']
    monkeypatch.setattr(card, 'model_card', lambda runner: known)
    return SimpleNamespace(
        work_dir=str(work_dir), train_loop=None, epoch=0, max_epochs=3, iter=0, max_iters=30, logger=Logger(),
        val_loop=SimpleNamespace(evaluator=SimpleNamespace(metrics=[object(), SimpleNamespace(details=details)])),
    )  # fmt: skip


def state(work_dir):
    return json.loads((work_dir / 'report/run.json').read_text())


def test_report_from_beginning_to_end(runner, work_dir, capsys):
    hook = HOOKS.build(dict(type='mixdet.ReportHook', samples=1))
    hook.before_train(runner)
    assert state(work_dir)['status'] == 'running' and (work_dir / 'report.html').is_file()
    assert not (work_dir / 'report/details.json').exists()  # those of the earlier training
    runner.epoch, runner.iter = 1, 10
    hook.after_val_epoch(runner)
    assert state(work_dir)['epoch'] == 1 and (work_dir / 'report/samples_1.jpg').is_file()
    runner.epoch, runner.iter = 3, 30
    hook.after_train(runner)
    hook.after_run(runner)
    assert state(work_dir)['status'] == 'finished' and not runner.logger
    assert capsys.readouterr().out.splitlines() == [f'Report: {work_dir / "report.html"}']


def test_a_training_that_is_cut_short(runner, work_dir):
    hook = ReportHook()
    hook.before_train(runner)
    runner.epoch, runner.iter = 1, 15
    hook.after_run(runner)
    assert state(work_dir)['status'] == 'stopped' and '>stopped<' in (work_dir / 'report.html').read_text()


def test_time_adds_up_over_resumes(runner, work_dir):
    runner.iter = 20
    hook = ReportHook()
    hook.before_train(runner)
    assert 3723.5 <= state(work_dir)['seconds'] < 3800 and (work_dir / 'report/details.json').exists()


def test_what_cannot_be_written_does_not_end_the_training(runner, work_dir):
    (work_dir / 'report.html.part').mkdir()
    hook = ReportHook()
    hook.before_train(runner)
    hook.after_train(runner)
    assert len(runner.logger) == 2 and runner.logger[0].startswith('The report was not written: IsADirectoryError')


def test_validation_alone_writes_nothing(runner, work_dir):
    before = (work_dir / 'report/run.json').read_text()
    hook = ReportHook()
    hook.after_val_epoch(runner)
    hook.after_run(runner)
    assert (work_dir / 'report/run.json').read_text() == before and not (work_dir / 'report.html').exists()
