"""Detect objects in images and videos: python tools/predict.py CONFIG CHECKPOINT IMAGE|FOLDER|GLOB|VIDEO ..."""

import argparse
import sys
from pathlib import Path

from mixdet.cli.arguments import add_unsafe_load, fraction
from mixdet.cli.main import run_tool, user_input
from mixdet.deploy.images import find_inputs
from mixdet.deploy.inference import Detector
from mixdet.deploy.prediction import PICTURES, Predictor
from mixdet.errors import UserError
from mixdet.text import print


def main() -> None:
    parser = argparse.ArgumentParser(description='Detect objects: pictures with boxes, JSON and CSV.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint, or a file exported by tools/export.py')
    parser.add_argument('inputs', nargs='+', help='images, videos, folders or globs')
    parser.add_argument('--out', type=Path, default=Path('predictions'), help='folder to write to')
    parser.add_argument('--overwrite', action='store_true', help='replace what an earlier run wrote to --out')
    parser.add_argument('--score-thr', type=fraction, default=0.3, help='lowest score drawn and written, 0 to 1')
    parser.add_argument(
        '--agnostic-nms', action='store_true', help='of overlapping boxes keep the best, whatever their classes'
    )
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1 ...')
    parser.add_argument('--batch-size', type=int, default=1, help='images per batch')
    parser.add_argument(
        '--no-fuse', action='store_true', help='do not fuse the network for speed on a CPU; run it as it was trained'
    )
    add_unsafe_load(parser)
    args = parser.parse_args()
    if args.batch_size < 1:
        raise UserError(f'--batch-size {args.batch_size}: must be at least 1')

    paths = find_inputs(args.inputs, leave_out=args.out / PICTURES)
    with user_input(args.config):
        detector = Detector(
            args.config, args.checkpoint, args.device, args.score_thr, not args.no_fuse, args.agnostic_nms
        )
    predictor = Predictor(detector, args.out, args.batch_size, args.overwrite)
    try:
        predictor.run(paths)
    except (KeyboardInterrupt, SystemExit):
        print(f'stopped after {predictor.images} images; their results are in {args.out}', file=sys.stderr)
        raise
    finally:
        for line in predictor.skipped:
            print(f'skipped: {line}')
    for line in predictor.notes:
        print(f'note: {line}')
    if not predictor.images:
        raise UserError(f'none of the {len(paths)} files could be read')
    print(f'{predictor.images} images, {len(predictor.skipped)} files skipped; results in {args.out}')


if __name__ == '__main__':
    run_tool(main)
