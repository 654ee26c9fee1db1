import os
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from mixdet.compat.distributed import prepare_launch
from mixdet.errors import UserError


def test_one_process_needs_nothing():
    cfg = Config(dict(env_cfg=dict(dist_cfg=dict(backend='nccl'))))
    prepare_launch(cfg, 'none')
    assert cfg.launcher == 'none' and cfg.env_cfg.dist_cfg.backend == 'nccl' and 'model_wrapper_cfg' not in cfg


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_cluster_launchers_need_gpus(launcher):
    with pytest.raises(UserError, match=f'--launcher {launcher} needs GPUs'):
        prepare_launch(Config(dict(env_cfg=dict(dist_cfg=dict(backend='nccl')))), launcher)


LEAVING = """
import atexit, os, sys
import torch.distributed as dist
from mixdet.compat.distributed import leave

class Tensor:
    def __del__(self, write=os.write):  # by now sys.stdout may have been flushed for the last time
        write(1, b'shut down\\n')

kept = Tensor()
atexit.register(print, 'atexit')
if sys.argv[1] == 'gloo':
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
print('work')
leave(3)
"""


@pytest.mark.parametrize(('backend', 'said'), [('gloo', ['work', 'atexit']), ('none', ['work', 'atexit', 'shut down'])])
def test_the_interpreter_is_not_shut_down_beside_gloos_threads(backend, said):
    environment = dict(os.environ)
    environment.pop('PYTHONUNBUFFERED', None)  # what is printed must be flushed
    done = subprocess.run([sys.executable, '-c', LEAVING, backend], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()) == (3, said), done.stderr
