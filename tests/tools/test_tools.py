"""The tools as a user starts them: on a few real (drawn) images, in processes of their own."""

import json
import os
import pickle
import re
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, run_tool, start_tool

from mixdet.datasets import demo, make_demo_data
from mixdet.engine.lock import FolderLock

pytestmark = pytest.mark.slow

CONFIG = """
_base_ = '{root}/configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py'
model = dict(backbone=dict(_delete_=True, type='mixdet.MobileNetV2', widen_factor=0.25,
                           out_indices=('expansion', 'head'), kernel_sizes=(3, 5, 7)))
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2, val_interval=1)
default_hooks = dict(logger=dict(interval=2), checkpoint=dict(interval=1))
"""


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    """A folder with a small demo set and a config that trains in seconds."""
    folder = tmp_path_factory.mktemp('work')
    make_demo_data(folder / 'data' / 'mixdet_demo', {'train': 16, 'val': 6})
    (folder / 'tiny.py').write_text(CONFIG.format(root=ROOT))
    return folder


@pytest.fixture(scope='module')
def training(work):
    """The first epoch of two, in a new interpreter, which has none of the imports that run_tool's server has."""
    return start_tool('train.py', 'tiny.py', '--cfg-options', 'train_cfg.max_epochs=1', cwd=work)


def last_checkpoint(work):
    return (work / 'work_dirs/tiny/last_checkpoint').read_text()


def test_train_prints_a_line_per_interval_and_the_coco_table(work, training):
    done = training
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    progress = [
        line for line in lines if re.match(r'epoch 1/1  iter \d/4  loss [\d.]+ \(cls [\d.]+, bbox [\d.]+\)', line)
    ]
    assert len(progress) == 2 and all(re.search(r'lr .* s/iter  eta .*  mem \d+ MiB', line) for line in progress)
    assert any(line.startswith('val epoch 1  AP ') for line in lines)
    for text in ('COCO box evaluation', 'AP  IoU .50:.95', 'AR  large', 'AP per class', *demo.CLASSES):
        assert text in done.stdout
    assert len(lines) < 40 and 'System environment' not in done.stdout
    logs = list((work / 'work_dirs/tiny').glob('*/*.log'))
    assert any('System environment' in log.read_text() for log in logs)


def test_train_ends_with_a_picture(work, training):
    from PIL import Image

    picture = work / 'work_dirs/tiny/predictions.jpg'
    assert str(picture) in training.stdout
    with Image.open(picture) as image:
        width, height = image.size
    assert width > 4 * demo.WIDTH and height > 3 * demo.HEIGHT  # 6 images, ground truth and prediction, two a row


def test_resume_goes_on_where_it_stopped(work, training):
    assert last_checkpoint(work).endswith('epoch_1.pth')
    done = run_tool('train.py', 'tiny.py', '--resume', cwd=work)
    assert done.returncode == 0, done.stderr
    assert 'epoch 2/2' in done.stdout and 'epoch 1/2' not in done.stdout
    assert last_checkpoint(work).endswith('epoch_2.pth')
    done = run_tool('train.py', 'tiny.py', '--resume', 'work_dirs/tiny/epoch_1.pth', '--work-dir', 'other', cwd=work)
    assert done.returncode == 0, done.stderr
    assert 'epoch 1/2' not in done.stdout and (work / 'other/epoch_2.pth').exists()


def test_a_finished_training_says_so_and_what_it_takes_from_the_config(work, training):
    arguments = ('tiny.py', '--work-dir', 'again', '--resume', 'work_dirs/tiny/epoch_1.pth', '--new-schedule')
    options = ('--cfg-options', 'train_cfg.max_epochs=1', 'optim_wrapper.optimizer.lr=0.004')
    done = run_tool('train.py', *arguments, *options, cwd=work)
    assert done.returncode == 0, done.stderr
    output = done.stdout + done.stderr
    assert 'resuming with the settings of the config: optimizer.lr 0.002 -> 0.004' in output
    assert 'is already finished: epoch 1 is done, and train_cfg.max_epochs is 1' in output
    assert 'Training on' not in output and not (work / 'again/epoch_1.pth').exists()


def test_a_refused_resume_leaves_the_work_dir_as_it_was(work, training):
    before = (work / 'work_dirs/tiny/tiny.py').read_text()
    options = ('--cfg-options', 'model.backbone.widen_factor=0.5')
    done = run_tool('train.py', 'tiny.py', '--resume', *options, cwd=work)
    assert done.returncode == 2 and 'it is of another network' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and 'load_from=' in done.stderr
    assert (work / 'work_dirs/tiny/tiny.py').read_text() == before


def test_test_evaluates_draws_and_dumps(work, training):
    arguments = ('tiny.py', 'work_dirs/tiny/epoch_1.pth', '--show-dir', 'pictures', '--out', 'predictions.pkl')
    done = run_tool('test.py', *arguments, cwd=work)
    assert done.returncode == 0, done.stderr
    assert 'COCO box evaluation' in done.stdout and 'AP per class' in done.stdout
    (folder,) = (work / 'work_dirs/tiny').glob('*/pictures')
    assert len(list(folder.glob('*.jpg'))) == 6
    assert f'Pictures: {folder.relative_to(work)} (6)' in done.stdout.replace(f'{work}/', '')
    dumped = pickle.loads((work / 'predictions.pkl').read_bytes())
    assert len(dumped) == 6 and dumped[0]['pred_instances']['bboxes'].shape[1] == 4
    files = {path.name for path in (work / 'work_dirs/tiny/results/epoch_1').iterdir()}
    assert {'details.json', 'per_class.csv', 'precision_recall.png', 'confusion.png'} <= files


def test_amp_and_auto_scale_lr(work):
    options = ('train_cfg.max_epochs=1', 'auto_scale_lr.base_batch_size=16')
    done = run_tool(
        'train.py', 'tiny.py', '--amp', '--auto-scale-lr', '--work-dir', 'amp', '--cfg-options', *options, cwd=work
    )
    assert done.returncode == 0, done.stderr
    (log,) = (work / 'amp').glob('*/*.log')
    assert 'Scaling the original LR by 0.25' in log.read_text()


def test_training_without_validation(work):
    (work / 'no_val.py').write_text(
        "_base_ = './tiny.py'\nval_dataloader = val_cfg = val_evaluator = None\n"
        'default_hooks = dict(checkpoint=dict(save_best=None))\ntrain_cfg = dict(max_epochs=1)\n'
    )
    done = run_tool('train.py', 'no_val.py', cwd=work)
    assert done.returncode == 0, done.stderr
    assert 'epoch 1/1  iter 4/4' in done.stdout and (work / 'work_dirs/no_val/epoch_1.pth').exists()


def test_no_detection_is_said_on_the_console(work, training):
    arguments = ('tiny.py', 'work_dirs/tiny/epoch_1.pth', '--cfg-options', 'model.test_cfg.score_thr=1.1')
    done = run_tool('test.py', *arguments, cwd=work)
    assert done.returncode == 0, done.stderr
    assert 'No detection passed test_cfg.score_thr: every AP is 0.' in done.stdout and '0.0000' in done.stdout


def test_two_processes_train_and_test_on_cpu(work):
    environment = {**os.environ, 'PORT': '29511', 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    environment['PATH'] = os.pathsep.join([os.path.dirname(sys.executable), environment['PATH']])

    def start(script, *arguments):
        command = ['bash', str(ROOT / 'tools' / script), *arguments]
        return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=600)

    done = start('dist_train.sh', 'tiny.py', '2', '--work-dir', 'dist', '--cfg-options', 'train_cfg.max_epochs=1')
    assert done.returncode == 0, done.stderr
    assert 'iter 2/2' in done.stdout  # 16 images, 4 in each of 2 processes
    single = run_tool('test.py', 'tiny.py', 'dist/epoch_1.pth', '--work-dir', 'dist', cwd=work)
    double = start('dist_test.sh', 'tiny.py', 'dist/epoch_1.pth', '2', '--work-dir', 'dist')
    assert single.returncode == double.returncode == 0, single.stderr + double.stderr
    table = single.stdout[single.stdout.index('COCO box') :]
    assert table.split('Ground truth')[0] in double.stdout


@pytest.fixture
def launch(tmp_path):
    """Calls tools/dist_train.sh; returns what it asks torchrun for, and the signals that this is to pass on."""
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\necho "$PET_SIGNALS_TO_HANDLE $TORCH_DISABLE_SHARE_RDZV_TCP_STORE"\necho "$@"\n')
    python.chmod(0o755)

    def run(before='', **variables):
        path = os.pathsep.join([str(tmp_path), os.environ['PATH']])
        command = ['bash', '-c', f'{before} exec bash {ROOT}/tools/dist_train.sh c.py 8 --resume']
        done = subprocess.run(command, env={'PATH': path, **variables}, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    return run


def test_a_launch_without_restarts_is_fixed(launch):
    signals, command = launch(NNODES='2', NODE_RANK='1', MASTER_ADDR='node0')
    assert signals == 'SIGHUP,SIGTERM,SIGINT,SIGQUIT,SIGUSR1 1'
    assert command.startswith(
        '-m torch.distributed.run --nnodes=2 --node_rank=1 --master_addr=node0 --master_port=29500 --nproc_per_node=8 '
    )
    assert command.endswith('tools/train.py c.py --launcher pytorch --resume')


def test_a_launch_with_restarts(launch):
    assert ' --standalone --max-restarts=3 --nproc_per_node=8 ' in launch(MAX_RESTARTS='3')[1]
    several = launch(MAX_RESTARTS='3', NNODES='2', MASTER_ADDR='node0', PORT='7', RUN_ID='b')[1]
    assert ' --nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=node0:7 --rdzv-id=b --max-restarts=3 ' in several


def test_torchrun_heeds_nohup(launch):
    assert launch("trap '' HUP;")[0] == 'SIGTERM,SIGINT,SIGQUIT,SIGUSR1 1'
    assert launch(PET_SIGNALS_TO_HANDLE='SIGTERM')[0] == 'SIGTERM 1'


def test_restarts_need_resume(work):
    done = run_tool('train.py', 'tiny.py', cwd=work, TORCHELASTIC_MAX_RESTARTS='3')
    assert done.returncode == 2 and 'torchrun --max-restarts: needs --resume without a file' in done.stderr


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_a_work_dir_in_use_is_refused_before_anything_is_written(work, tmp_path):
    lock = FolderLock(tmp_path, print)
    lock.acquire()
    done = run_tool('train.py', 'tiny.py', '--work-dir', tmp_path, '--resume', cwd=work)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert f'{tmp_path} is in use by another training (process {os.getpid()} on ' in done.stderr
    lock.release()
    assert not list(tmp_path.iterdir())


BAD_INPUT = {
    'missing config': (['train.py', 'gone.py'], 'config gone.py does not exist'),
    'missing checkpoint': (['test.py', 'tiny.py', 'gone.pth'], 'checkpoint gone.pth does not exist'),
    'missing checkpoint to resume': (
        ['train.py', 'tiny.py', '--resume', 'gone.pth'],
        'checkpoint gone.pth does not exist',
    ),
    'weights alone to resume': (
        ['train.py', 'tiny.py', '--resume', 'other.pth'],
        'other.pth cannot be resumed: it holds',
    ),
    'schedule of nothing to resume': (['train.py', 'tiny.py', '--new-schedule'], '--new-schedule: needs --resume'),
    'corrupt checkpoint': (['test.py', 'tiny.py', 'corrupt.pth'], 'checkpoint corrupt.pth is corrupt'),
    'checkpoint of another model': (['test.py', 'tiny.py', 'other.pth'], 'is not of this model'),
    'missing annotations': (
        ['train.py', 'coco.py', '--cfg-options', 'train_dataloader.dataset.ann_file=gone.json'],
        'annotation file data/mixdet_demo/gone.json does not exist',
    ),
    'missing images': (
        ['train.py', 'coco.py', '--cfg-options', 'train_dataloader.dataset.data_prefix.img=gone/'],
        'image folder data/mixdet_demo/gone does not exist',
    ),
    'class names not in the file': (
        ['train.py', 'coco.py', '--cfg-options', 'train_dataloader.dataset.metainfo.classes="(\'disk\',)"'],
        "class 'disk' is not in data/mixdet_demo/annotations/train.json; did you mean 'disc'",
    ),
    'unknown option': (
        ['train.py', 'tiny.py', '--cfg-options', 'modle.x=1'],
        "unknown key 'modle' in the config; did you mean model",
    ),
    'wrong kernel_sizes': (
        ['train.py', 'tiny.py', '--cfg-options', 'model.backbone.kernel_sizes="(3,4)"'],
        'kernel_sizes=(3, 4): every size must be odd and positive',
    ),
    'wrong class count': (
        ['train.py', 'tiny.py', '--cfg-options', 'model.bbox_head.num_classes=7'],
        'num_classes',
    ),
    'truncated annotations': (
        ['train.py', 'coco.py', '--cfg-options', 'train_dataloader.dataset.ann_file=truncated.json'],
        'truncated.json is not valid JSON or is truncated',
    ),
    'wrong --out': (['test.py', 'tiny.py', 'work_dirs/tiny/epoch_1.pth', '--out', 'a.txt'], 'must end in .pkl'),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line_and_status_2(work, training, case):
    (work / 'corrupt.pth').write_bytes((work / 'work_dirs/tiny/epoch_1.pth').read_bytes()[:5000])
    torch.save(dict(state_dict={'a': torch.zeros(1)}), work / 'other.pth')
    classes = ', '.join(map(repr, demo.CLASSES))
    (work / 'coco.py').write_text(
        "_base_ = './tiny.py'\n"
        f"train_dataloader = dict(dataset=dict(type='CocoDataset', metainfo=dict(classes=({classes}))))\n"
    )
    annotations = (work / 'data/mixdet_demo/annotations/train.json').read_text()
    categories = json.dumps(json.loads(annotations)['categories'])
    (work / 'data/mixdet_demo/truncated.json').write_text(f'{{"categories": {categories}, "images": [{{"id": 1')
    (tool, *arguments), message = BAD_INPUT[case]
    done = run_tool(tool, *arguments, cwd=work)
    assert done.returncode == 2, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(errors) == 1 and errors[0].startswith('error: ') and message in errors[0]
    assert 'Traceback' not in done.stdout


def test_usage_errors_have_status_2(work):
    assert run_tool('train.py', cwd=work).returncode == 2
    for script in ('dist_train.sh', 'dist_test.sh', 'slurm_train.sh'):
        done = subprocess.run(['bash', str(ROOT / 'tools' / script)], capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith('usage: ')


def test_another_ground_truth_than_the_data_sets_is_refused(work, training):
    """Of the data set alone the file is changed; the two agree again when the evaluator's is changed as well."""
    folder = work / 'data/mixdet_demo/annotations'
    content = json.loads((folder / 'val.json').read_text())
    content['annotations'] = content['annotations'][1:]
    (folder / 'other.json').write_text(json.dumps(content))
    options = ['--cfg-options', 'test_dataloader.dataset.ann_file=annotations/other.json']
    done = run_tool('test.py', 'tiny.py', 'work_dirs/tiny/epoch_1.pth', *options, cwd=work)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert 'the boxes of image' in done.stderr and 'set test_evaluator.ann_file=' in done.stderr
    options += [f'test_evaluator.ann_file={folder / "other.json"}', 'test_dataloader.dataset.indices=2']
    done = run_tool('test.py', 'tiny.py', 'work_dirs/tiny/epoch_1.pth', *options, '--work-dir', 'other_truth', cwd=work)
    assert done.returncode == 0, done.stderr
    boxes = sum(
        annotation['image_id'] in [image['id'] for image in content['images'][:2]]
        for annotation in content['annotations']
    )
    rows = (work / 'other_truth/results/epoch_1/per_class.csv').read_text().splitlines()[1:]
    assert sum(int(row.split(',')[1]) for row in rows) == boxes


def with_classes(work, split, names, name):
    """Write a copy of an annotation file whose categories have ``names``, and a config of ``name`` for it."""
    folder = work / 'data/mixdet_demo/annotations'
    content = json.loads((folder / f'{split}.json').read_text())
    content['categories'] = [dict(id=i, name=names[i]) for i in names]
    (folder / f'{name}.json').write_text(json.dumps(content))
    dataset = dict(ann_file=f'annotations/{name}.json', metainfo=dict(classes=tuple(names.values())))
    return f'dict(num_workers=0, persistent_workers=False, dataset={dataset!r})'


def test_classes_in_another_order_than_the_checkpoints_are_refused(work, training):
    """All files agree with one another, and every weight fits: only the checkpoint knows what its labels mean."""
    names = dict(reversed([*enumerate(demo.CLASSES, 1)]))
    loader = with_classes(work, 'val', names, 'reversed')
    evaluator = "dict(ann_file='data/mixdet_demo/annotations/reversed.json')"
    (work / 'reversed.py').write_text(
        f"_base_ = './tiny.py'\ntest_dataloader = {loader}\ntest_evaluator = {evaluator}\n"
    )
    checkpoint = 'work_dirs/tiny/epoch_1.pth'
    done = run_tool('test.py', 'reversed.py', checkpoint, cwd=work)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f'checkpoint {checkpoint}: its classes are in another order than in test_dataloader: ' in done.stderr
    assert "class 0 is 'disc', not 'star' (4 of 4 differ); give data with" in done.stderr
    images = 'data/mixdet_demo/images/val'
    done = run_tool('predict.py', 'reversed.py', checkpoint, images, '--score-thr', 0, '--out', 'p', cwd=work)
    assert done.returncode == 0 and 'the names are those of the checkpoint' in done.stdout, done.stderr
    categories = json.loads((work / 'p/images.json').read_text())['categories']
    assert [category['name'] for category in categories] == list(demo.CLASSES)


def test_names_of_any_kind_under_any_locale(work):
    """Rich's markup, TeX, a formula, control characters and letters that the locale lacks, from training to report."""
    names = dict(enumerate(['[/]', r'$\frac$', '=1+1', '\x1b[31mWürfel\u202e'], 1))
    train, val = (with_classes(work, split, names, f'odd_{split}') for split in ('train', 'val'))
    (work / '[odd] $x_$.py').write_text(
        f"_base_ = './tiny.py'\ntrain_dataloader, val_dataloader = {train}, {val}\ntest_dataloader = val_dataloader\n"
        "val_evaluator = dict(ann_file='data/mixdet_demo/annotations/odd_val.json')\ntest_evaluator = val_evaluator\n"
        'model = dict(test_cfg=dict(score_thr=0.0, max_per_img=5))\n',
        encoding='utf-8',
    )
    locale = dict(LC_ALL='C', PYTHONIOENCODING='ascii', PYTHONUTF8='0')
    out = 'odd[/]'
    options = ('--work-dir', out, '--cfg-options', 'train_cfg.max_epochs=1')
    done = start_tool('train.py', '[odd] $x_$.py', *options, cwd=work, **locale)
    assert done.returncode == 0 and '\\x1b[31mW\\xfcrfel\\u202e' in done.stdout, done.stdout + done.stderr
    assert 'Traceback' not in done.stderr and '[/]' in done.stdout and r'$\frac$' in done.stdout
    table = (work / out / 'results.csv').read_text(encoding='utf-8').splitlines()
    assert len({line.count(',') for line in table}) == 1 and 'AP =1+1' in table[0] and 'Würfel' in table[0]
    done = run_tool('test.py', '[odd] $x_$.py', f'{out}/epoch_1.pth', '--work-dir', out, cwd=work)
    assert done.returncode == 0 and '\\x1b[31mWürfel\\u202e' in done.stdout, done.stderr
    assert set(json.loads((work / out / 'results/epoch_1.json').read_text())['per_class']) == set(names.values())
    rows = (work / out / 'results/epoch_1/per_class.csv').read_text(encoding='utf-8').splitlines()
    assert [row.split(',')[0] for row in rows[1:]] == ['[/]', r'$\frac$', "'=1+1", '\\x1b[31mWürfel\\u202e']
    written = [*(work / out).rglob('*.csv'), *(work / out).rglob('*.log'), work / out / 'report.html']
    for path in written:
        assert not re.search('[\x1b\u202e]', path.read_text(encoding='utf-8')), path
