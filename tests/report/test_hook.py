import json
from types import SimpleNamespace

import pytest

from mixdet.registry import HOOKS
from mixdet.report import card
from mixdet.report.hook import ReportHook

pytestmark = pytest.mark.slow


def training_set():
    """A loader of a data set of three images, two of them with a box."""
    instances = [dict(bbox=[0, 0, 30, 40], bbox_label=0, ignore_flag=0)]
    infos = [dict(width=60, height=80, instances=instances * (i > 0)) for i in range(3)]
    dataset = SimpleNamespace(metainfo=dict(classes=('a',)), get_data_info=infos.__getitem__)
    return SimpleNamespace(dataset=Sized(infos, dataset))


class Sized(list):
    """A data set with a length, whose samples no network could take."""

    def __init__(self, infos, dataset):
        super().__init__(infos)
        self.metainfo, self.get_data_info = dataset.metainfo, dataset.get_data_info


class Logger(list):
    warning = list.append


@pytest.fixture
def runner(work_dir, details, monkeypatch):
    """A training about to begin in the work dir of an earlier one."""
    known = dict(json.loads((work_dir / 'report/run.json').read_text())['card'], start=[])
    monkeypatch.setattr(card, 'model_card', lambda runner: known)
    return SimpleNamespace(
        work_dir=str(work_dir), train_loop=None, timestamp='20260102_000000', seed=0, train_dataloader=training_set(),
        epoch=0, max_epochs=3, iter=0, max_iters=30, logger=Logger(),
        val_loop=SimpleNamespace(evaluator=SimpleNamespace(metrics=[object(), SimpleNamespace(details=details)])),
    )  # fmt: skip


def state(work_dir):
    return json.loads((work_dir / 'report/run.json').read_text())


def test_report_from_beginning_to_end(runner, work_dir, capsys):
    hook = HOOKS.build(dict(type='mixdet.ReportHook', samples=1))
    (work_dir / 'report/.run.json.abcd1234.partial').mkdir()  # a kill left it
    hook.before_train(runner)
    assert not list((work_dir / 'report').glob('.*'))
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


def test_a_clock_that_is_changed_meanwhile_counts_for_nothing(runner, work_dir, monkeypatch):
    hook = ReportHook()
    hook.before_train(runner)
    monkeypatch.setattr('time.time', lambda: 0.0)
    hook.after_run(runner)
    assert 0 <= state(work_dir)['seconds'] < 600


def test_time_adds_up_over_resumes(runner, work_dir):
    runner.iter = 20
    hook = ReportHook()
    hook.before_train(runner)
    assert 3723.5 <= state(work_dir)['seconds'] < 3800 and (work_dir / 'report/details.json').exists()


def test_what_cannot_be_written_does_not_end_the_training(runner, work_dir):
    (work_dir / 'report.html').mkdir()
    hook = ReportHook()
    hook.before_train(runner)
    hook.after_train(runner)
    assert (
        len(runner.logger) == 2
        and (work_dir / 'report.html').is_dir()
        and runner.logger[0].startswith('The report was not written: IsADirectoryError')
    )


def test_validation_alone_writes_nothing(runner, work_dir):
    before = (work_dir / 'report/run.json').read_text()
    hook = ReportHook()
    hook.after_val_epoch(runner)
    hook.after_run(runner)
    assert (work_dir / 'report/run.json').read_text() == before and not (work_dir / 'report.html').exists()


def test_the_training_set_is_described_as_far_as_it_can_be(runner, work_dir):
    ReportHook().before_train(runner)
    written = state(work_dir)
    assert (written['data']['images'], written['data']['boxes'], written['data']['empty']) == (3, 2, 1)
    assert 'augmented' not in written and 'the pipeline gives no image with boxes' in written['augmented_missing']
    assert not runner.logger


def test_a_resumed_training_keeps_its_start_and_notes_its_logs(runner, work_dir):
    earlier = state(work_dir)
    earlier['card']['start'] = [dict(part='backbone', file='a.pth')]
    (work_dir / 'report/run.json').write_text(json.dumps(earlier))
    runner.iter = 20
    ReportHook().before_train(runner)
    assert state(work_dir)['card']['start'] == earlier['card']['start']
    assert state(work_dir)['logs'] == ['20260101_000000', '20260102_000000']
    runner.iter = 0  # begun anew
    ReportHook().before_train(runner)
    assert state(work_dir)['logs'] == ['20260102_000000']


def test_a_training_resumed_after_a_crash_has_a_report(runner, work_dir):
    """One that cut off what the hook had written."""
    (work_dir / 'report/run.json').write_text('{"card": ')
    runner.iter = 20
    ReportHook().before_train(runner)
    written = state(work_dir)
    assert written['status'] == 'running' and not runner.logger
    assert written['logs'] == ['20260101_000000', '20260102_000000'] and written['seconds'] >= 3  # of the log
    assert 'start' not in written['card']  # its own checkpoint is not what the training began with


def test_a_crash_while_it_is_written_leaves_the_state_whole(runner, work_dir, monkeypatch):
    hook = ReportHook()
    hook.before_train(runner)
    before = (work_dir / 'report/run.json').read_text()

    def killed(*args):
        raise OSError('no space left')

    monkeypatch.setattr('os.replace', killed)
    runner.epoch = 2
    hook.after_val_epoch(runner)
    assert (work_dir / 'report/run.json').read_text() == before and len(runner.logger) == 1
