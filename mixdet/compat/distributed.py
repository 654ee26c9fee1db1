"""Several processes without a GPU.

Defect answered: mmengine 0.10.7 calls CUDA functions when it starts a process group, whatever the backend
(dist/utils.py), and hands GPU ids to DistributedDataParallel (runner/runner.py). Can go when it asks for CUDA first.
"""

import torch
import torch.distributed as dist
from mmengine.config import Config

from mixdet.errors import UserError


def prepare_launch(cfg: Config, launcher: str) -> None:
    """Set ``cfg`` up for ``launcher`` ('none', 'pytorch', 'slurm' or 'mpi'), on GPUs or, with 'pytorch', on CPUs.

    Without a GPU the gloo process group is created here, before the Runner, which then leaves it alone.

    Raises:
        UserError: if there is no GPU and the launcher is not 'pytorch' (torchrun).
    """
    cfg.launcher = launcher
    if launcher == 'none' or torch.cuda.is_available():
        return
    if launcher != 'pytorch':
        raise UserError(
            f'--launcher {launcher} needs GPUs and there is none; start with tools/dist_train.sh (torchrun)'
        )
    cfg.env_cfg.dist_cfg = dict(backend='gloo')
    dist.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
