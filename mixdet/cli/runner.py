"""Building a Runner from a config and the arguments of a tool."""

import argparse
import contextlib
import io
import os
from typing import Optional

from mmdet.engine.hooks import NumClassCheckHook
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop
from mmengine.runner import Runner as MMEngineRunner

from mixdet.cli.main import user_input
from mixdet.compat.distributed import prepare_launch
from mixdet.datasets.preflight import check_datasets
from mixdet.engine.checkpoint import check_pretrained
from mixdet.engine.runner import Runner
from mixdet.engine.schedule import misfits
from mixdet.engine.validation import check_validation
from mixdet.errors import UserError
from mixdet.evaluation.truth import check_ground_truth

EMPTY = '{}_dataloader.dataset is empty: no image has a box of its classes that filter_cfg accepts'


def build_runner(cfg: Config, args: argparse.Namespace, parts: tuple[str, ...]) -> MMEngineRunner:
    """A Runner with its data sets and loops built, so that errors in the config show up before anything runs.

    Args:
        cfg: config from ``config_from_arguments``.
        args: the tool's arguments.
        parts: which of 'train', 'val' and 'test' will run.

    Raises:
        UserError: if the config, its data or its checkpoints are unusable.
    """
    with user_input(args.config):
        check_validation(cfg, parts)
        check_datasets(cfg, parts, decode=getattr(args, 'check_images', False))
        check_ground_truth(cfg, parts)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    prepare_launch(cfg, args.launcher)
    with user_input(args.config):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        if 'train' in parts:
            check_pretrained(runner.model)
        for part in parts:
            with contextlib.redirect_stdout(io.StringIO()):  # CocoDataset prints its progress
                loop = _build_loop(runner, part)
            if loop is None:
                continue
            if not len(loop.dataloader.dataset):
                raise UserError(EMPTY.format(part))
            for hook in runner.hooks:
                if isinstance(hook, NumClassCheckHook):
                    getattr(hook, f'before_{part}_epoch')(runner)
        if 'train' in parts:
            late = misfits(cfg, runner.train_loop.max_iters)
            if late:
                what = f'after the end of the training: {", ".join(late)}'
                runner.logger.warning(f'{what}; the schedule is cut off there, set these keys to what fits')
    return runner


def _build_loop(runner: MMEngineRunner, part: str) -> Optional[BaseLoop]:
    """The loop of a part, with its data set."""
    try:
        return getattr(runner, f'{part}_loop')
    except ValueError as error:
        if 'at least one array to concatenate' in str(error):  # what MMEngine makes of an empty data set
            raise UserError(EMPTY.format(part)) from error
        raise
