import csv

import pytest
from helpers import ROOT, run_tool

from mixdet.datasets import make_demo_data

pytestmark = pytest.mark.slow

ROWS = ('mobilenetv1-baseline3x3', 'mobilenetv2-mixconv357', 'mixnet-s')


def test_sizes_and_latency(tmp_path):
    done = run_tool('table1.py', '--rows', *ROWS, '--rounds', 1, '--work-dir', 'out', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / 'out/table1.md').read_text().splitlines()
    assert len(lines) == 5 and all(line.endswith('| not trained |') for line in lines[2:])
    assert lines[3].startswith('| mobilenetv2-mixconv357 | 4.49M | 4.49M | 0.88G | 0.88G | 4.470M | 0.876G |')
    records = list(csv.DictReader((tmp_path / 'out/table1.csv').read_text().splitlines()))
    assert [record['config'] for record in records] == list(ROWS)
    assert all(float(record['latency_ms_cpu']) > 0 for record in records)
    assert (tmp_path / 'out/table1.png').stat().st_size > 10_000


def test_training_fills_the_table_and_is_not_repeated(tmp_path):
    make_demo_data(tmp_path / 'set', {'train': 8, 'val': 4})
    (tmp_path / 'ssdlite_tiny_coco.py').write_text(
        f"_base_ = '{ROOT}/configs/ssdlite_mobilenetv2/ssdlite_mobilenetv2-baseline3x3_8xb24-600e_coco.py'\n"
        'model = dict(backbone=dict(widen_factor=0.25), neck=dict(extra_channels=(32, 32, 32, 32)))\n'
    )
    arguments = ['--train', '--data-root', 'set', '--epochs', 1, '--rounds', 0, '--rows', 'ssdlite_tiny_coco.py']
    for part in ('train', 'val'):
        arguments += [f'--{part}-ann', f'annotations/{part}.json', f'--{part}-images', f'images/{part}/']
    done = run_tool('table1.py', *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (record,) = csv.DictReader((tmp_path / 'work_dirs/table1/table1.csv').read_text().splitlines())
    assert record['config'] == 'tiny' and not any('latency' in column for column in record)
    assert record['data'] == 'set/val, 4 images' and 0 <= float(record['ap']) <= 1
    done = run_tool('table1.py', *arguments, cwd=tmp_path)
    assert done.returncode == 0 and 'already trained and evaluated' in done.stdout and 'epoch 1/1' not in done.stdout


def test_a_config_of_another_network(tmp_path):
    (tmp_path / 'retina.py').write_text("_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'\n")
    done = run_tool('table1.py', '--rows', 'retina.py', cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("error: retina.py: convention='paper' is defined for mixdet.SSDLiteHead only")


def test_wrong_arguments(tmp_path):
    for arguments, message in (
        (['--rows', 'mobilenetv9'], '--rows mobilenetv9: must be'),
        (['--train'], '--train and --data-root belong together'),
        (['--rounds', '-1'], '--rounds, --epochs, --seeds and --gpus must not be negative'),
        (['--train', '--data-root', 'gone'], 'gone/annotations/instances_train2017.json does not exist'),
    ):
        done = run_tool('table1.py', *arguments, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
