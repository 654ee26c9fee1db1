"""Measure what the safeguards cost: the share of a training's processor time that is spent in them."""

import argparse
import time
from collections import Counter
from pathlib import Path

import torch

from mixdet.cli.main import run_tool
from mixdet.datasets import make_demo_data
from mixdet.engine import CheckpointHook, InterruptHook, NonFiniteHook, Runner, resume, seeded_data
from mixdet.engine.config import load_config
from mixdet.text import print

CONFIG = Path(__file__).resolve().parents[2] / 'configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py'
spent: Counter = Counter()  # processor time by part, s


def timed(owner, name: str, part: str) -> None:
    """Wrap ``owner.name`` so that the time of each call is added to ``part``."""
    function = getattr(owner, name)

    def wrapper(*args, **kwargs):
        start = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent[part] += time.thread_time() - start

    setattr(owner, name, wrapper)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--config', default=str(CONFIG), help='config (default: the demo)')
    parser.add_argument('--work-dir', default='work_dirs/overhead')
    parser.add_argument('--iterations', type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cfg = load_config(args.config)
    cfg.work_dir = args.work_dir
    if args.config == str(CONFIG):
        make_demo_data(cfg.train_dataloader.dataset.data_root)
    # load in this process, so that the time is measured
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=args.iterations)
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint = dict(type='mixdet.CheckpointHook', by_epoch=False, interval=args.iterations)

    for name in ('before_train_iter', 'after_train_iter', '_take_losses', '_before_step'):
        timed(NonFiniteHook, name, 'loss and gradients')
    timed(CheckpointHook, 'before_save_checkpoint', 'weights before a save')
    timed(resume, 'fingerprint', 'fingerprint of data')
    timed(InterruptHook, 'after_train_iter', 'signals')
    timed(seeded_data.SeededDataset, '__getitem__', 'seeds of samples')
    timed(resume, 'capture', 'state in a checkpoint')
    runner = Runner.from_cfg(cfg)
    inner = runner.train_loop.dataloader.dataset
    timed(type(inner), '__getitem__', 'loading')
    start = time.thread_time()
    runner.train()
    total = time.thread_time() - start
    spent['seeds of samples'] -= spent.pop('loading')
    for part, seconds in spent.items():
        print(f'{part:24s} {1e3 * seconds / args.iterations:8.3f} ms per iteration  {100 * seconds / total:6.3f} %')
    print(f'all: {100 * sum(spent.values()) / total:.2f} % of {1e3 * total / args.iterations:.0f} ms')


if __name__ == '__main__':
    run_tool(main)
