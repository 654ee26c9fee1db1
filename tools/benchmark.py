"""Time a config's detector against others: python tools/benchmark.py CONFIG --against split OTHER_CONFIG."""

import argparse
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

from mixdet.analysis.detector_speed import as_split, build, markdown, measure
from mixdet.engine.cli import run_tool, user_input
from mixdet.engine.config import load_config
from mixdet.errors import UserError

SPLIT = 'split'


def main() -> None:
    parser = argparse.ArgumentParser(description='Time the networks of detectors, interleaved in one process.')
    parser.add_argument('config', help='config file; runs in channels_last')
    parser.add_argument(
        '--against',
        nargs='+',
        default=[SPLIT],
        metavar='WHAT',
        help=f"other configs ('NCHW:' in front runs one in that layout), or '{SPLIT}': the same detector group by "
        'group in NCHW, as timm and stock PyTorch compute it; the first is what ratios are over',
    )
    parser.add_argument('--shape', type=int, nargs=2, default=(320, 320), metavar=('H', 'W'), help='input size, px')
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 8], help='batch sizes for inference')
    parser.add_argument('--train-batch', type=int, default=8, help='batch size of a training step, 0 for none')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--seconds', type=float, default=5.0, help='for each of the measurements')
    args = parser.parse_args()
    if min(args.threads, *args.batches) < 1 or args.train_batch < 0:
        raise UserError('--threads and --batches must be at least 1, --train-batch at least 0')

    torch.set_num_threads(args.threads)
    name = Path(args.config).stem
    models, channels_last = {name: _model(args.config)}, {name: True}
    reference = None
    for what in args.against:
        nchw = what == SPLIT or what.startswith('NCHW:')
        path = what[len('NCHW:') :] if what.startswith('NCHW:') else what
        label = f'{name}, split NCHW' if what == SPLIT else Path(path).stem + ', NCHW' * nchw
        if label in models:
            raise UserError(f'--against {what}: is the config itself, or named twice')
        models[label] = as_split(models[name]) if what == SPLIT else _model(path)
        channels_last[label] = not nchw
        reference = reference or label
    with user_input(args.config):
        results = measure(
            models, channels_last, tuple(args.shape), tuple(args.batches), args.train_batch, args.seconds, (name,)
        )
    print(markdown(results, reference))


def _model(path: str) -> torch.nn.Module:
    cfg = load_config(path)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with user_input(path):
        return build(cfg)


if __name__ == '__main__':
    run_tool(main)
