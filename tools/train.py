"""Train a detector: python tools/train.py CONFIG."""

import argparse
from pathlib import Path

import torch

from mixdet.cli.arguments import add_common_arguments, config_from_arguments
from mixdet.cli.main import run_tool
from mixdet.cli.runner import build_runner
from mixdet.compat.checkpoints import trust_files
from mixdet.engine.checkpoint import check_related, read_checkpoint
from mixdet.engine.expectations import warn_of_differences
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
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (bfloat16 on CPU)')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate to the batch size')
    parser.add_argument('--check-images', action='store_true', help='read every image before the training starts')
    args = parser.parse_args()

    if args.unsafe_load:
        trust_files()
    cfg = config_from_arguments(args)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper' if torch.cuda.is_available() else 'mixdet.CPUAmpOptimWrapper'
        if torch.cuda.is_available():
            cfg.optim_wrapper.loss_scale = 'dynamic'
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UserError(f'--auto-scale-lr: {args.config} has no auto_scale_lr=dict(base_batch_size=...)')
        cfg.auto_scale_lr.enable = True
    if args.resume == 'auto' and not any(Path(cfg.work_dir).glob('*.pth')):
        print(f'Nothing to resume in {cfg.work_dir}: training from the start')
    elif args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    local = cfg.get('load_from') and '://' not in cfg.load_from
    checkpoint = read_checkpoint(cfg.load_from) if local else None

    runner = build_runner(cfg, args, ('train', 'val'))
    if checkpoint is not None:
        check_related(checkpoint, runner.model, cfg.load_from, 'load_from')
        warn_of_differences(checkpoint, runner.model, cfg.load_from)
    if not any(isinstance(hook, FoldedBatchNormHook) for hook in runner.hooks):
        runner.register_hook(FoldedBatchNormHook(num_images=0))
    runner.train()


if __name__ == '__main__':
    run_tool(main)
