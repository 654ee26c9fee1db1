import pytest
from helpers import run_tool

from mixdet.datasets import make_demo_data

pytestmark = pytest.mark.slow

PARTS = (
    'loss and gradients',
    'weights before a save',
    'fingerprint of data',
    'signals',
    'seeds of samples',
    'state in a checkpoint',
    'all:',
)


def test_the_cost_of_each_safeguard_is_printed(tmp_path):
    make_demo_data(tmp_path / 'data/mixdet_demo', {'train': 8, 'val': 4})
    done = run_tool('analysis_tools/overhead.py', '--iterations', 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for part in PARTS:
        assert sum(line.startswith(part) for line in lines) == 1, done.stdout
