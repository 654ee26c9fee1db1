import contextlib
import os
import re
import signal
import sys
import time
from types import SimpleNamespace

import pytest
from forked import end_of, fork
from forked import run as end_and_output
from study_examples import result, write_study

from mixdet.engine.config import load_config
from mixdet.errors import UserError
from mixdet.reproduction import worker as module
from mixdet.reproduction.run_results import read_run_result
from mixdet.reproduction.sharing import Progress
from mixdet.reproduction.study import load_study
from mixdet.reproduction.worker import RESTART, Worker, output_in, run_processes


@pytest.fixture
def progress(tmp_path):
    return Progress(load_study(write_study(tmp_path)), tmp_path / 'work', 'first')


class FakeRunner:
    """Takes the place of MMEngine's."""

    def __init__(self, error=None):
        self.error = error
        self.test_loop = SimpleNamespace(run=lambda: {})

    def build(self, cfg, path):
        print(f'{path} in {cfg.work_dir}, resume={cfg.resume}', flush=True)
        return self

    def train(self):
        os.write(1, b'trained\n')
        if self.error:
            raise self.error


@pytest.fixture
def work(progress, tmp_path, monkeypatch):
    """Does a run with a Runner that ends as told, in a process whose output is a file: its status and that output."""

    def made(run, settings, runner, metrics, seconds, command, jobs):
        return result(run.row, run.data, run.seed, settings=settings, command=command, jobs=jobs)

    monkeypatch.setattr(module, 'make_result', made)

    def do(error=None, **settings):
        worker = Worker(progress, tmp_path / 'data', FakeRunner(error).build, 'python tools/study.py s.py', jobs=3)
        run = progress.study.runs()[2]
        return end_and_output(lambda: worker.do(run, settings or dict(lr=0.01)), tmp_path / 'output')

    return do


def test_a_run_leaves_its_result_and_says_a_line(work, progress):
    run = progress.study.runs()[2]
    status, output = work()
    assert status == 0 and re.fullmatch(r'demo/tiny3_seed0: AP 0\.250, AP50 0\.500, \d+ s\n', output)
    done = read_run_result(progress.result_file(run))
    assert done.command == 'python tools/study.py s.py --data demo --rows tiny3 --seeds 0'
    assert (done.jobs, done.settings) == (3, dict(lr=0.01))
    config = progress.work_dir / 'demo/tiny3_seed0.py'
    assert load_config(str(config)).optim_wrapper.optimizer.lr == 0.01
    assert progress.beside(run, '.log').read_text() == f'{config} in {progress.folder(run)}, resume=False\ntrained\n'


def test_a_run_with_a_checkpoint_is_resumed(work, progress):
    run = progress.study.runs()[2]
    progress.folder(run).mkdir(parents=True)
    (progress.folder(run) / 'epoch_1.pth').touch()
    work()
    assert 'resume=True' in progress.beside(run, '.log').read_text()


def test_a_run_that_was_begun_with_other_settings(work, progress):
    run = progress.study.runs()[2]
    work()
    progress.result_file(run).unlink()
    _, output = work(lr=0.001)
    assert 'tiny3_seed0.py was written with other settings; give another --work-dir' in output
    assert progress.has_failed(run) and not progress.is_done(run)


def test_bad_input_is_one_line_and_the_next_run_can_come(work, progress):
    run = progress.study.runs()[2]
    assert work(UserError('no such image')) == (0, 'demo/tiny3_seed0 failed: no such image\n')
    assert progress.has_failed(run) and not progress.is_done(run)
    work()  # by another invocation
    assert not progress.has_failed(run)


def test_another_failure_shows_the_end_of_the_log_and_asks_for_a_new_process(work, progress):
    status, output = work(RuntimeError('CUDA error: an illegal memory access'))
    assert status == RESTART and progress.has_failed(progress.study.runs()[2])
    first, *lines = output.splitlines()
    assert first.endswith('tiny3_seed0.log:') and len(lines) == module.LAST_LINES
    assert lines[-1] == '  RuntimeError: CUDA error: an illegal memory access'


def test_an_interrupt_is_no_failure(work, progress):
    assert work(SystemExit(143)) == (143, '')
    assert not progress.has_failed(progress.study.runs()[2])


def test_output_goes_to_a_file_and_comes_back(tmp_path):
    path = tmp_path / 'new/log'

    def act():
        with contextlib.suppress(ZeroDivisionError), output_in(path):
            print('python')
            os.write(2, b'system\n')
            raise ZeroDivisionError
        print('after')

    assert end_and_output(act, tmp_path / 'output') == (0, 'after\n')
    assert sorted(path.read_text().split()) == ['python', 'system']


SCRIPT = """
import os, sys, time
count = len(open({path!r}).read()) if os.path.exists({path!r}) else 0
open({path!r}, 'a').write('x')
{act}
"""


def command(tmp_path, act):
    return [sys.executable, '-c', SCRIPT.format(path=str(tmp_path / 'starts'), act=act)]


def starts(tmp_path):
    return len((tmp_path / 'starts').read_text())


@pytest.mark.parametrize(
    ('act', 'count'),
    [('', 1), (f'sys.exit({RESTART} if count < 4 else 0)', 5), ('os.abort()', 1 + module.CRASHES)],
)
def test_processes_are_started_again(tmp_path, act, count):
    assert run_processes(command(tmp_path, act), 1) == 0
    assert starts(tmp_path) == count


def test_a_signal_is_passed_on_once(tmp_path):
    act = 'import signal; signal.signal(signal.SIGTERM, lambda *_: (open(sys.argv[-1], "a").write("t"), sys.exit(143)))'
    words = [*command(tmp_path, f'{act}; time.sleep(60)'), str(tmp_path / 't')]
    process = fork(lambda: sys.exit(run_processes(words, 2)))
    while not (tmp_path / 'starts').exists() or starts(tmp_path) < 2:
        time.sleep(0.02)
    time.sleep(0.3)  # until the handlers are there
    os.kill(process, signal.SIGTERM)
    assert end_of(process) == 128 + signal.SIGTERM
    assert (tmp_path / 't').read_text() == 'tt' and starts(tmp_path) == 2
