import json

import pytest
from helpers import ROOT, run_tool

from mixdet.datasets import make_demo_data

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """A config of the demo set with a small network."""
    path = tmp_path_factory.mktemp('data') / 'tiny.py'
    path.write_text(
        f"_base_ = '{ROOT}/configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py'\n"
        "model = dict(backbone=dict(_delete_=True, type='mixdet.MobileNetV2', widen_factor=0.25,\n"
        "                           out_indices=('expansion', 'head'), kernel_sizes=3))\n"
    )
    return path


def test_times_a_config_against_another(config):
    make_demo_data(str(config.parent / 'demo'))
    done = run_tool(
        'benchmark_data.py', 'tiny.py', '--against', 'tiny.py', '--cfg-options', 'data_root=demo/',
        'train_dataloader.batch_size=2', '--first-options', 'train_dataloader.prefetch_factor=4', '--images', 2,
        '--rounds', 1, '--batches', 1, '--workers', 0, 1, '--step', '--out', 'data.json', cwd=config.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((config.parent / 'data.json').read_text())
    first, second = report['transforms_cpu_ms']
    assert (first, second) == ('tiny with train_dataloader.prefetch_factor=4', 'tiny')
    times = report['transforms_cpu_ms'][second]
    assert times['LoadImageFromFile'] > 0 and times['all'] == pytest.approx(sum(times.values()) / 2)
    assert all(set(rates) == {'0', '1'} for rates in report['loaders'].values())
    assert all(rate['images_per_s'] > 0 for rates in report['loaders'].values() for rate in rates.values())
    assert all(step['cpu_ms'] > 0 for step in report['steps'].values())
    assert 'torch' in report['environment'] and '| tiny | 1 |' in done.stdout


@pytest.mark.parametrize(('arguments', 'message'), [
    (['tiny.py', '--images', 0], 'must be at least 1'),
    (['tiny.py', '--workers', -1], '--workers at least 0'),
    (['tiny.py', '--step-ms', 0], '--step-ms 0: must be above 0'),
    (['tiny.py', '--out', 'no/data.json'], 'the folder no does not exist'),
    (['tiny.py', '--against', 'tiny.py'], 'is the config itself'),
    (['gone.py'], 'gone.py does not exist'),
    (['tiny.py', '--cfg-options', 'data_rot=x'], "unknown key 'data_rot'"),
    (['tiny.py', '--cfg-options', 'data_root=gone/', 'train_dataloader.dataset.type=CocoDataset'], 'gone/annotations'),
    (['tiny.py', '--cfg-options', 'train_dataloader=None'], 'no train_dataloader'),
])  # fmt: skip
def test_refuses_what_it_cannot_do(config, arguments, message):
    done = run_tool('benchmark_data.py', *arguments, cwd=config.parent)
    assert done.returncode == 2 and done.stderr.startswith('error: ') and message in done.stderr, done.stderr
