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
