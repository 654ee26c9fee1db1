"""The arguments that train.py and test.py have in common, as MMDetection's, and the config they describe."""

import argparse
import math
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mixdet.cli.options import OptionAction, config_with_options
from mixdet.compat.checkpoints import trust_files
from mixdet.errors import UserError
from mixdet.text import print


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that train.py and test.py have in common."""
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/<config name>)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionAction,
        metavar='KEY=VALUE',
        help='change settings and variables of the config: max_epochs=50 model.backbone.kernel_sizes="(3,5)"',
    )
    add_unsafe_load(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torchrun sets LOCAL_RANK; older launchers pass an argument
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_unsafe_load(parser: argparse.ArgumentParser) -> None:
    """Add ``--unsafe-load``, which every tool has that reads checkpoints or exported files."""
    parser.add_argument(
        '--unsafe-load',
        action=_TrustFiles,
        nargs=0,
        default=False,
        help='load checkpoints and exported files that contain code, and let it run: only if you trust them',
    )


class _TrustFiles(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        trust_files()
        setattr(namespace, self.dest, True)


def fraction(text: str) -> float:
    """The type of an argument from 0 to 1, such as a score. Raises UserError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise UserError(f'{text!r} is no score: give a number from 0 to 1, such as 0.3')
    return value


def config_from_arguments(args: argparse.Namespace) -> Config:
    """The config that ``args`` describe; its ``work_dir`` is set.

    Raises:
        UserError: if the config cannot be read, an option has an unknown key or no effect, or the path of the work_dir
            is not UTF-8.
    """
    cfg, notes = config_with_options(args.config, args.cfg_options or {})
    for note in notes if os.environ.get('RANK', '0') == '0' else ():  # one of several processes prints
        print(note)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    try:
        os.fsencode(os.path.abspath(cfg.work_dir).encode().decode())
    except UnicodeEncodeError as error:  # OpenCV, which MMEngine writes pictures with, would end the process
        raise UserError(f'work_dir {cfg.work_dir}: its path must be UTF-8; choose another') from error
    return cfg
