"""Building a Runner from a config and the arguments of a tool."""

import argparse
import contextlib
import io
import os

from mmdet.engine.hooks import NumClassCheckHook
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner as MMEngineRunner

from mixdet.cli.main import user_input
from mixdet.compat.distributed import prepare_launch
from mixdet.datasets.preflight import check_datasets
from mixdet.engine.checkpoint import check_pretrained
from mixdet.engine.runner import Runner
from mixdet.errors import UserError
from mixdet.evaluation.truth import check_ground_truth


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
                loop = getattr(runner, f'{part}_loop')
            if loop is None:
                continue
            if not len(loop.dataloader.dataset):
                raise UserError(
                    f'{part}_dataloader.dataset is empty: no image has a box of its classes that filter_cfg accepts'
                )
            for hook in runner.hooks:
                if isinstance(hook, NumClassCheckHook):
                    getattr(hook, f'before_{part}_epoch')(runner)
    return runner
