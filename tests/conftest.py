"""Set-up of every test."""

import os

import pytest
import torch

# before anything imports Triton, which reads it once
if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')

from mmengine.registry import init_default_scope

import mixdet  # noqa: F401  (its shims must be in place before mmcv and mmdet are imported)

torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', 2)))


@pytest.fixture(autouse=True, scope='session')
def mmdet_scope():
    """Types without a prefix are MMDetection's, as in every config."""
    init_default_scope('mmdet')
