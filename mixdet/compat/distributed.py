"""Several processes on CPUs.

Defects answered:
- mmengine 0.10.7 calls CUDA functions when it starts a process group, whatever the backend (dist/utils.py), and passes
  GPU ids to DistributedDataParallel (runner/runner.py). Can go when it checks for CUDA first.
- PyTorch up to 2.13: a gloo thread that frees a tensor while the interpreter is shutting down aborts the process
  ("terminate called without an active exception") after all work is done; destroy_process_group does not join these
  threads if there was a DistributedDataParallel, which keeps the group alive (pytorch/pytorch#179291). Can go when it
  joins them.
"""

import atexit
import os
import sys
from typing import NoReturn

import torch
import torch.distributed as dist
from mmengine.config import Config

from mixdet.errors import UserError


def prepare_launch(cfg: Config, launcher: str) -> None:
    """Prepare ``cfg`` for ``launcher`` ('none', 'pytorch', 'slurm' or 'mpi'), on GPUs or, with 'pytorch', on CPUs.

    Without a GPU the gloo process group is created here; the Runner then uses it.

    Raises:
        UserError: if there is no GPU and the launcher is not 'pytorch' (torchrun).
    """
    cfg.launcher = launcher
    if launcher == 'none' or torch.cuda.is_available():
        return
    if launcher != 'pytorch':
        raise UserError(f'--launcher {launcher} needs GPUs and none was found; use tools/dist_train.sh (torchrun)')
    cfg.env_cfg.dist_cfg = dict(backend='gloo')
    dist.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)


def leave(status: int) -> NoReturn:
    """Exit with ``status``, as sys.exit does; with a gloo process group, without shutting down the interpreter."""
    gloo = dist.is_initialized() and dist.get_backend() == 'gloo'
    if dist.is_initialized():
        dist.destroy_process_group()
    if gloo:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
