"""The report of real (small) trainings, one of them cut short."""

import html
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from helpers import ROOT, run_tool

from mixdet.datasets import make_demo_data
from mixdet.datasets.demo import CLASSES

pytestmark = pytest.mark.slow

CONFIG = """
_base_ = '{root}/configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py'
model = dict(backbone=dict(_delete_=True, type='mixdet.MobileNetV2', widen_factor=0.25,
                           out_indices=('expansion', 'head')))
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
val_evaluator = dict(score_thr=0.0)
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1000, val_interval=1)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
"""


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    """A folder with a training of one epoch, and one that was to take 1000 and got a Ctrl-C after the first."""
    folder = tmp_path_factory.mktemp('report')
    make_demo_data(folder / 'data/mixdet_demo', {'train': 8, 'val': 4})
    (folder / 'tiny.py').write_text(CONFIG.format(root=ROOT))
    command = [sys.executable, '-u', str(ROOT / 'tools/train.py'), 'tiny.py', '--work-dir', 'work_dirs/stopped']
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdout=pipe, text=True, preexec_fn=_interruptible) as process:
        for line in process.stdout:
            if re.match(r'epoch (?!1/)\d+/1000  iter 1/2', line):  # once an epoch, should one signal be lost
                process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
    done = run_tool('train.py', 'tiny.py', '--cfg-options', 'train_cfg.max_epochs=1', cwd=folder)
    assert done.returncode == 0, done.stderr
    assert 'Report: ' in done.stdout and 'not written' not in done.stderr
    return folder


def _interruptible():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite run in the background ignores it


def state(work, name):
    return json.loads((work / f'work_dirs/{name}/report/run.json').read_text())


def test_report_of_a_training(work):
    folder = work / 'work_dirs/tiny'
    page = (folder / 'report.html').read_text()
    assert '>finished<' in page and all(name in page for name in CLASSES)
    card = state(work, 'tiny')['card']
    assert (card['name'], card['seed'], card['input_size'], card['train']['images']) == ('tiny', 0, [160, 160], 8)
    assert card['val'] == dict(images=4, annotations='data/mixdet_demo/annotations/val.json')
    assert card['macs'] > 1e6 and card['latency_ms'] > 0 and card['command'].endswith('train_cfg.max_epochs=1')
    val = [
        json.loads(line) for path in folder.glob('*/vis_data/scalars.json') for line in path.read_text().splitlines()
    ]
    assert f'data-number="bbox_mAP">{val[-1]["coco/bbox_mAP"]:.4f}<' in page
    assert page.count(' href="data:image/jpeg;base64,') >= 4 and 'tools/train.py work_dirs/tiny/tiny.py' in page
    assert (folder / 'results.csv').read_text().startswith('kind,epoch,iter,lr,loss,loss_bbox,loss_cls,mAP,')


def test_what_the_training_began_with_is_in_its_report(work):
    written = state(work, 'tiny')
    assert written['card']['start'] == [] and set(written['card']['losses']) == {
        'bbox_head.loss_cls',
        'bbox_head.loss_bbox',
    }
    assert written['data']['images'] == 8 and [row['name'] for row in written['data']['classes']] == list(CLASSES)
    assert len(written['augmented']) == 8 and all(record['size'] == [160, 160] for record in written['augmented'])
    (log,) = written['logs']
    assert (work / 'work_dirs/tiny' / log / 'vis_data/scalars.json').is_file()


def test_report_is_there_after_ctrl_c(work):
    saved = state(work, 'stopped')
    assert saved['status'] == 'stopped' and saved['epoch'] == 1 and saved['iter'] in (2, 3, 4)
    page = (work / 'work_dirs/stopped/report.html').read_text()
    assert '>stopped<' in page and 'epoch 1 of 1000' in page and 'data-number="bbox_mAP"' in page


def test_several_side_by_side(work):
    done = run_tool('report.py', 'work_dirs/tiny', 'work_dirs/stopped', '--out', 'both.html', cwd=work)
    assert done.returncode == 0, done.stderr
    assert 'Comparison: both.html' in done.stdout and 'AP  IoU .50:.95' in done.stdout
    page = (work / 'both.html').read_text()
    assert 'tiny' in page and 'stopped' in page and 'finished' in page


def test_report_of_a_moved_work_dir(work):
    """And the commands that the page gives do what it says."""
    shutil.copytree(work / 'work_dirs/tiny', work / 'moved')
    (work / 'moved/report.html').unlink()
    done = run_tool('report.py', 'moved', cwd=work)
    assert done.returncode == 0 and done.stdout == 'Report: moved/report.html\n', done.stderr
    lines = re.findall(r'<pre class="wrap">python tools/([^<]*)</pre>', (work / 'moved/report.html').read_text())
    commands = {tool: rest for tool, *rest in (shlex.split(html.unescape(line)) for line in lines)}
    assert commands.pop('report.py') == ['moved'] and commands['predict.py'][2] == 'IMAGES'
    commands['predict.py'][2] = 'data/mixdet_demo/images/val'
    expected = {
        'train.py': 'Report: ',
        'test.py': 'Results: moved/results/best_coco_bbox_mAP_epoch_1.json',
        'predict.py': '4 images, 0 files skipped; results in moved/predictions',
        'export.py': 'moved/model.onnx: ',
    }
    assert set(commands) == set(expected)
    for tool, arguments in commands.items():
        done = run_tool(tool, *arguments, cwd=work)
        assert done.returncode == 0 and expected[tool] in done.stdout, done.stderr


def test_folders_of_any_name(work):
    """One path, and one config, are markup to Rich; the other folder has a byte that is not UTF-8."""
    folders = ['a[/]b', os.fsdecode(b'$\xe9t\xe9$')]
    for folder in folders:
        shutil.copytree(work / 'work_dirs/tiny', work / folder)
    first, second = (work / folder / 'report/run.json' for folder in folders)
    content = json.loads(first.read_text())
    content['card']['name'] = '[/x] <b>'
    first.write_text(json.dumps(content))
    second.write_text(second.read_text()[:99])
    done = run_tool('report.py', *folders, '--out', 'any.html', cwd=work)
    assert done.returncode == 0 and '[/x] <b>' in done.stdout and 'Comparison: any.html' in done.stdout, done.stderr
    assert '[/x] &lt;b&gt;' in (work / 'any.html').read_text()
    (warning,) = done.stderr.splitlines()
    assert warning.startswith('warning: $\\xe9t\\xe9$/report/run.json is left out: it is cut off')
    done = run_tool('report.py', folders[1], cwd=work)
    assert done.returncode == 0 and done.stdout == 'Report: $\\xe9t\\xe9$/report.html\n', done.stderr
    assert 'data-number="bbox_mAP"' in (work / folders[1] / 'report.html').read_text()


def test_bad_arguments_are_one_line(work):
    done = run_tool('report.py', 'data', cwd=work)
    assert done.returncode == 2 and 'work dir data holds no training' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_evaluation_with_mirrored_images(work):
    done = run_tool('test.py', 'tiny.py', 'work_dirs/tiny/epoch_1.pth', '--tta', cwd=work)
    assert done.returncode == 0, done.stderr
    assert 'Results: work_dirs/tiny/results_tta/epoch_1.json' in done.stdout
    assert (work / 'work_dirs/tiny/results_tta/epoch_1/worst_1.jpg').is_file()
