"""What the command-line tools share: arguments, building a Runner, and errors in one line."""

import argparse
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from mmdet.engine.hooks import NumClassCheckHook
from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner as MMEngineRunner

from mixdet.compat.checkpoints import trust_files
from mixdet.compat.distributed import leave, prepare_launch
from mixdet.datasets.preflight import check_datasets
from mixdet.engine.allocator import keep_freed_memory
from mixdet.engine.checkpoint import check_pretrained
from mixdet.engine.config import load_config
from mixdet.engine.runner import Runner
from mixdet.errors import UserError

TRACEBACK = 'MIXDET_TRACEBACK'
# of upstream's code, about nothing that a user can change
UPSTREAM_WARNINGS = ('torch.meshgrid', 'pkg_resources', 'pin_memory', 'lr_scheduler.step', 'out of bounds')


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool's ``main`` and exit: status 2 and one line on bad input, 130 on Ctrl-C outside a training.

    With ``MIXDET_TRACEBACK=1`` in the environment bad input shows its traceback as well.
    """
    for noise in UPSTREAM_WARNINGS:
        warnings.filterwarnings('ignore', message=f'.*{noise}')
    keep_freed_memory()
    status = 0
    try:
        main()
    except UserError as error:
        if os.environ.get(TRACEBACK):
            raise
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    except SystemExit as stop:  # argparse, and a training that was interrupted
        status = stop.code
    leave(status)


@contextlib.contextmanager
def user_input(what: str) -> Iterator[None]:
    """Turn what goes wrong inside, where the user's config is being acted on, into a UserError about ``what``."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # configs can ask for anything, and upstream raises anything
        if isinstance(error, FileNotFoundError) and error.filename:
            reason = f'file {error.filename} does not exist'
        else:
            reason = (
                f'{type(error).__name__}: {error}' if not isinstance(error, (ValueError, AssertionError)) else error
            )
        raise UserError(f'{what}: {reason} (traceback: {TRACEBACK}=1)') from error


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that MMDetection's train.py and test.py have in common."""
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/<config name>)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change settings of the config: train_cfg.max_epochs=50 model.backbone.kernel_sizes="(3,5)"',
    )
    parser.add_argument(
        '--unsafe-load',
        action='store_true',
        help='load checkpoints that hold code, and let it run: only if you trust them',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torchrun sets LOCAL_RANK; older launchers pass an argument
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def read_config(args: argparse.Namespace) -> Config:
    """The config that ``args`` describe, ready for the Runner."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.unsafe_load:
        trust_files()
    cfg = load_config(args.config, args.cfg_options)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    return cfg


def build_runner(cfg: Config, args: argparse.Namespace, parts: tuple[str, ...]) -> MMEngineRunner:
    """A Runner with its data sets and loops built, so that all that can be wrong with a config has come up.

    Args:
        cfg: config from ``read_config``.
        args: the tool's arguments.
        parts: which of 'train', 'val' and 'test' will run.
    """
    with user_input(args.config):
        check_datasets(cfg, parts, decode=getattr(args, 'check_images', False))
    prepare_launch(cfg, args.launcher)
    with user_input(args.config):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        if 'train' in parts:
            check_pretrained(runner.model)
        for part in parts:
            with contextlib.redirect_stdout(io.StringIO()):  # CocoDataset prints its progress
                loop = getattr(runner, f'{part}_loop')
            if loop is None:
                continue
            if not len(loop.dataloader.dataset):
                raise UserError(
                    f'{part}_dataloader.dataset is empty: no image has a box of its classes that passes filter_cfg'
                )
            for hook in runner.hooks:
                if isinstance(hook, NumClassCheckHook):
                    getattr(hook, f'before_{part}_epoch')(runner)
    return runner
