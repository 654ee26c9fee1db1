import os
import signal
import time

import pytest
from forked import end_of, fork
from study_examples import result, write_study

from mixdet.errors import UserError
from mixdet.reproduction import sharing
from mixdet.reproduction.run_results import read_json, write_run_result
from mixdet.reproduction.sharing import CLAIM, Progress, claim, share
from mixdet.reproduction.study import load_study


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, 'POLL', 0.02)
    return load_study(write_study(tmp_path))


@pytest.fixture
def progress(study, tmp_path):
    return Progress(study, tmp_path / 'work', 'first')


def finish(progress, run, ap=0.25):
    write_run_result(result(run.row, ap=ap), progress.result_file(run))


class Diary:
    """Does runs by writing their results, and a line in a file that several processes share."""

    def __init__(self, progress, pause=0.0):
        self.progress, self.pause, self.path = progress, pause, progress.work_dir / 'diary'
        progress.work_dir.mkdir(exist_ok=True)

    def do(self, run, settings):
        with self.path.open('a') as file:
            file.write(f'{os.getpid()} {run.name} {settings["lr"]}\n')
        time.sleep(self.pause)
        finish(self.progress, run)

    @property
    def lines(self):
        return [line.split() for line in self.path.read_text().splitlines()] if self.path.exists() else []


def test_runs_are_done_in_their_order_with_what_was_chosen(progress):
    runs = progress.study.runs()
    finish(progress, runs[1], ap=0.5)
    diary = Diary(progress)
    share(progress, runs, diary.do)
    assert [name for _, name, _ in diary.lines] == [run.name for run in (runs[0], *runs[2:])]
    assert [lr for _, _, lr in diary.lines] == ['0.001', *['0.01'] * 4]  # 0.5 AP on images held out
    share(progress, runs, diary.do)
    assert len(diary.lines) == 5  # nothing is left


def test_two_processes_do_each_run_once(progress):
    runs = progress.study.runs()
    diary = Diary(progress, pause=0.1)
    processes = [fork(lambda: share(progress, runs, diary.do)) for _ in range(2)]
    assert [end_of(process) for process in processes] == [0, 0]
    assert sorted(name for _, name, _ in diary.lines) == sorted(run.name for run in runs)
    assert {int(process) for process, _, _ in diary.lines} == set(processes)


def test_what_a_killed_process_was_doing_is_done_by_another(progress):
    runs = progress.study.runs()
    slow = Diary(progress, pause=60)
    process = fork(lambda: share(progress, runs, slow.do))
    while not slow.lines:
        time.sleep(0.02)
    with claim(progress.folder(runs[0])) as ours:
        assert not ours
    os.kill(process, signal.SIGKILL)
    assert end_of(process) == -signal.SIGKILL
    diary = Diary(progress)
    share(progress, runs, diary.do)
    assert [name for _, name, _ in diary.lines] == [runs[0].name, *(run.name for run in runs)]


def test_a_claim_ends_with_its_block(progress):
    folder = progress.folder(progress.study.runs()[0])
    with pytest.raises(ZeroDivisionError), claim(folder) as ours:
        assert ours and (folder / CLAIM).is_file()
        raise ZeroDivisionError
    assert not (folder / CLAIM).exists()


def test_runs_that_others_do_are_left_to_them(progress):
    runs = progress.study.runs()
    for run in runs[:-2]:
        finish(progress, run)
    diary = Diary(progress)
    held, told = os.pipe()

    def hold():
        with claim(progress.folder(runs[-2])):
            os.write(told, b'.')
            signal.pause()

    process = fork(hold)
    os.read(held, 1)
    share(progress, runs, diary.do)
    assert [name for _, name, _ in diary.lines] == [runs[-1].name]
    os.kill(process, signal.SIGKILL)
    end_of(process)


def test_a_failure_is_tried_once_by_each_invocation(progress, study):
    runs = study.runs()
    tried = []

    def fail(run, settings):
        tried.append(run.name)
        progress.note_failure(run)

    share(progress, runs[:1], fail)
    assert tried == [runs[0].name] and progress.has_failed(runs[0])
    again = Progress(study, progress.work_dir, 'second')
    assert not again.has_failed(runs[0])
    again.note_failure(runs[0])
    assert progress.has_failed(runs[0]) and again.has_failed(runs[0])


def test_the_choice_is_made_of_what_did_not_fail_and_stays(progress):
    first, second, run = progress.study.runs()[:3]
    assert progress.settings(first) == dict(lr=0.001) and progress.settings(run) is None
    progress.note_failure(first)
    assert progress.settings(run) is None
    finish(progress, second, ap=0.1)
    assert progress.settings(run) == dict(lr=0.01)
    finish(progress, first, ap=0.9)
    assert progress.settings(run) == dict(lr=0.01)  # or the rows would differ
    choice = read_json(progress.work_dir / 'results/choices/tiny.json')
    assert choice['tried'] == [dict(settings=dict(lr=0.01), ap=[0.1])] and choice['row'] == 'tiny3'


def test_without_any_choice_the_rows_fail(progress, capsys):
    first, second, run = progress.study.runs()[:3]
    for one in (first, second):
        progress.note_failure(one)
    with pytest.raises(UserError, match='the runs by which its settings are chosen have failed'):
        progress.settings(run)
    share(progress, [run], lambda *_: pytest.fail('it cannot be done'))
    assert progress.has_failed(run) and run.name in capsys.readouterr().out


def test_a_study_without_a_choice(study, tmp_path):
    plain = study._replace(choice=None)
    assert len(plain.runs()) == 4
    assert Progress(plain, tmp_path, 'first').settings(plain.runs()[0]) == {}


def test_claims_of_other_machines_come_last(progress, monkeypatch):
    runs = progress.study.runs()[2:]
    for run in progress.study.runs()[:2]:
        finish(progress, run)
    monkeypatch.setattr(sharing, 'is_held_elsewhere', lambda folder, name: folder == progress.folder(runs[0]))
    diary = Diary(progress)
    share(progress, runs, diary.do)
    assert [name for _, name, _ in diary.lines] == [run.name for run in (*runs[1:], runs[0])]


def test_a_process_ends_when_the_one_that_started_it_is_gone(progress, monkeypatch):
    parents = iter([1, 1, 2])
    monkeypatch.setattr(sharing.os, 'getppid', lambda: next(parents))
    diary = Diary(progress)
    share(progress, progress.study.runs(), diary.do)
    assert len(diary.lines) == 1
