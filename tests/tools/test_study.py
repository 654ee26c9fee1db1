"""A study trains, is killed and goes on; its results are taken over into the page."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, run_tool
from study_examples import result, write_study

from mixdet.reproduction.run_results import read_run_results, write_run_result

pytestmark = pytest.mark.slow

RUNS = ['demo/tiny3_seed0', 'demo/tiny5_seed0', 'demo_held-out/tiny3_lr0.001_seed0', 'demo_held-out/tiny3_lr0.01_seed0']


def test_killed_and_gone_on_with(tmp_path):
    study = write_study(tmp_path)
    arguments = [str(study), '--data-root', 'data', '--jobs', '2', '--seeds', '0']
    command = [sys.executable, str(ROOT / 'tools/study.py'), *arguments]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    with (tmp_path / 'output').open('w') as output:
        running = subprocess.Popen(
            command, cwd=tmp_path, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        work_dir = tmp_path / 'work_dirs/study'
        begun = time.monotonic()
        while not list(work_dir.glob('*/*/epoch_1.pth')) and time.monotonic() < begun + 500:
            assert running.poll() is None, (tmp_path / 'output').read_text()
            time.sleep(0.05)
        for process in [*_workers(running.pid), running.pid]:
            os.kill(process, signal.SIGKILL)
        running.wait()
    assert 0 <= len(read_run_results(work_dir / 'results')) < 4 and list(work_dir.glob('*/*/epoch_1.pth'))

    done = run_tool('study.py', *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert '4 done, 0 left' in done.stdout
    results = read_run_results(work_dir / 'results')
    files = sorted(path.relative_to(work_dir / 'results') for path in work_dir.glob('results/demo*/*'))
    assert [path.as_posix().removesuffix('.json') for path in files] == RUNS
    for one in results:
        assert [end for end, _ in one.loss] == list(range(1, one.iterations + 1))  # also those before the kill
        assert one.params > 0 and one.macs > 0 and one.input_size == [160, 160] and one.seconds['train'] > 0
        assert set(one.per_class) == {'disc', 'square', 'triangle', 'star'} and 0 <= one.ap <= 1 and one.jobs == 2
        assert one.images == dict(train=9 if 'held' in one.data else 12, test=3 if 'held' in one.data else 2)
    chosen = json.loads((work_dir / 'results/choices/tiny.json').read_text())['chosen']
    assert all(one.settings == chosen for one in results if one.data == 'demo')
    logs = ''.join(path.read_text() for path in work_dir.glob('*/*.log'))
    assert logs.count('epoch 2/2') == 4 or 'Resum' in logs or 'resum' in logs

    done = run_tool('study.py', *arguments, cwd=tmp_path)
    assert done.returncode == 0 and '4 runs, 4 of them done' in done.stdout
    done = run_tool('results_page.py', '--add', work_dir / 'results', '--docs', 'docs', '--configs', '.', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '| tiny3 |' in (tmp_path / 'docs/results.md').read_text()


def _workers(parent):
    """The processes that ``parent`` has started."""
    output = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(parent)], capture_output=True, text=True).stdout
    return [int(pid) for pid in output.split()]


def test_wrong_arguments(tmp_path):
    study = write_study(tmp_path)
    for arguments, message in (
        (['--jobs', '0'], '--jobs and --checkpoint-interval must be at least 1'),
        (['--rows', 'tiny9'], '--rows tiny9: must be one of tiny3, tiny5'),
        (['--data', 'gone'], '--data gone: must be one of demo, demo_held-out'),
    ):
        done = run_tool('study.py', study, '--data-root', 'data', *arguments, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_runs_that_fail_are_named(tmp_path):
    study = write_study(tmp_path)
    arguments = [study, '--data-root', 'gone', '--data', 'demo_held-out', '--jobs', '2']
    done = run_tool('study.py', *arguments, cwd=tmp_path)
    assert done.returncode == 2 and 'error: 2 runs failed: demo_held-out/tiny3_lr0.001_seed0, ' in done.stderr
    assert done.stdout.count('gone/demo does not exist; set --data-root') == 2


def test_results_are_not_replaced(tmp_path):
    for folder, ap in (('one', 0.2), ('two', 0.3)):
        write_run_result(result('mobilenetv1-mixconv35', ap=ap), tmp_path / folder / 'neu-det/a_seed0.json')
    arguments = ('--docs', 'docs', '--configs', '.')
    assert run_tool('results_page.py', '--add', 'one', *arguments, cwd=tmp_path).returncode == 0
    assert run_tool('results_page.py', '--add', 'one', *arguments, cwd=tmp_path).returncode == 0
    done = run_tool('results_page.py', '--add', 'two', *arguments, cwd=tmp_path)
    assert done.returncode == 2 and 'docs/results/neu-det/a_seed0.json has another result; remove it' in done.stderr
    assert read_run_results(tmp_path / 'docs/results')[0].ap == 0.2
    done = run_tool('results_page.py', '--add', 'gone', *arguments, cwd=tmp_path)
    assert done.returncode == 2 and '--add gone: there are no results' in done.stderr


def test_without_results_the_page_and_the_readmes_stay(tmp_path):
    (tmp_path / 'family').mkdir()
    readme = tmp_path / 'family/README.md'
    readme.write_text(
        '| config | params | MACs | mAP (paper) | mAP (ours) | AP, neu-det (ours) |\n|---|---|---|---|---|---|\n'
        '| [mobilenetv1-mixconv35](a.py) | 1 | 2 | 22.2 | not trained | 23.6 ± 0.4 |\n',
        encoding='utf-8',
    )
    before = readme.read_bytes()
    done = run_tool('results_page.py', '--docs', 'docs', '--configs', '.', cwd=tmp_path)
    assert done.returncode == 2 and 'docs/results has no results of tools/study.py; give --add' in done.stderr
    assert readme.read_bytes() == before and not (tmp_path / 'docs').exists()
