"""Train a detector: python tools/train.py CONFIG."""

import argparse
from pathlib import Path

import torch
from mmengine.config import Config

from mixdet.cli.arguments import add_common_arguments, config_from_arguments
from mixdet.cli.main import run_tool
from mixdet.cli.runner import build_runner
from mixdet.engine import CheckpointHook
from mixdet.engine.checkpoint import check_related, read_checkpoint
from mixdet.engine.expectations import warn_of_differences
from mixdet.engine.launch import check_restarts
from mixdet.engine.lock import check_free
from mixdet.engine.validation import without_validation
from mixdet.errors import UserError
from mixdet.text import print
from mixdet.weights.hook import FoldedBatchNormHook


def main() -> None:
    parser = argparse.ArgumentParser(description='Train a detector.')
    add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume a training from CHECKPOINT, or without one from the latest in the work dir',
    )
    parser.add_argument(
        '--new-schedule',
        action='store_true',
        help='with --resume: take learning rate, schedule and other settings of the optimizer from the config, not '
        'from the checkpoint, for example to train for more epochs',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (bfloat16 on CPU)')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate to the batch size')
    parser.add_argument('--check-images', action='store_true', help='read every image before the training starts')
    parser.add_argument('--no-validate', action='store_true', help='train without a validation set')
    args = parser.parse_args()

    cfg = config_from_arguments(args)
    check_free(Path(cfg.work_dir))
    apply_arguments(args, cfg)
    local = cfg.get('load_from') and '://' not in cfg.load_from
    checkpoint = read_checkpoint(cfg.load_from) if local else None

    runner = build_runner(cfg, args, ('train', 'val'))
    if checkpoint is not None and not args.resume:  # one that is resumed must fit exactly, which its hook checks
        check_related(checkpoint, runner.model, cfg.load_from, 'load_from')
        warn_of_differences(checkpoint, runner.model, cfg.load_from)
    if not any(isinstance(hook, FoldedBatchNormHook) for hook in runner.hooks):
        runner.register_hook(FoldedBatchNormHook(num_images=0))
    runner.train()


def apply_arguments(args: argparse.Namespace, cfg: Config) -> None:
    """Change the config as the arguments say."""
    if args.no_validate:
        without_validation(cfg)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper' if torch.cuda.is_available() else 'mixdet.CPUAmpOptimWrapper'
        if torch.cuda.is_available():
            cfg.optim_wrapper.loss_scale = 'dynamic'
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UserError(f'--auto-scale-lr: {args.config} has no auto_scale_lr=dict(base_batch_size=...)')
        cfg.auto_scale_lr.enable = True
    if args.new_schedule:
        hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
        if not args.resume or hook.get('type') not in ('mixdet.CheckpointHook', CheckpointHook):
            raise UserError(
                '--new-schedule: needs --resume, and default_hooks.checkpoint of type mixdet.CheckpointHook'
            )
        hook.new_schedule = True
    if not check_restarts(args.resume):
        raise UserError(
            'torchrun --max-restarts: needs --resume without a file; else a process that is started again begins anew'
        )
    if args.resume == 'auto' and not any(Path(cfg.work_dir).glob('*.pth')):
        print(f'Nothing to resume in {cfg.work_dir}: training from the start')
    elif args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume


if __name__ == '__main__':
    run_tool(main)
