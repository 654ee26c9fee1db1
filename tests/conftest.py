"""Set-up of every test."""

import os

import pytest
import torch

# before anything imports Triton, which reads it once
if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')

# else OpenVINO's package reports to its makers, in threads of its own, even when it is imported
os.environ.setdefault('CI', 'true')

import isolation  # with it mixdet, whose shims must be in place before mmcv and mmdet are imported
from mmengine.registry import init_default_scope

torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', 2)))


def pytest_configure(config):
    """Leave pytest-randomly the order of the tests, and no seeds: every test has the same, see ``same_start``."""
    if hasattr(config.option, 'randomly_reset_seed'):
        config.option.randomly_reset_seed = False


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    """What several tests share is random in the same way, whichever test comes first."""
    if fixturedef.scope != 'function':
        isolation.seed()


@pytest.fixture(autouse=True, scope='session')
def mmdet_scope():
    """Types without a prefix are MMDetection's, as in every config."""
    init_default_scope('mmdet')


@pytest.fixture(autouse=True)
def same_start():
    """A test begins with the same random numbers, whatever ran before, and fails if it leaves the process changed."""
    isolation.seed()
    runs, before = isolation.runs(), isolation.state()
    yield
    isolation.forget_runs(runs)
    changes = isolation.changes(before, isolation.state())
    if changes:
        pytest.fail('changed and not restored:\n' + '\n'.join(changes), pytrace=False)
