"""Time whole evaluations: python tools/analysis_tools/benchmark_evaluation.py CONFIG --ann FILE.json --images DIR."""

import argparse
import functools
import json
import sys
import tempfile
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

from mixdet.benchmark.evaluations import evaluations_markdown, mmdet_evaluation, time_evaluations, write_evaluation
from mixdet.cli.main import run_tool, user_input
from mixdet.engine.atomic import check_new, write_new_text
from mixdet.engine.config import load_config
from mixdet.errors import UserError
from mixdet.text import print


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Time tools/test.py on CONFIG and MMDetection's own tool on its own SSDLite-MobileNetV2, each in a "
        'process of its own, in turns. Weights are random; test_cfg of CONFIG, with its NMS, holds for both.'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('--ann', type=Path, required=True, metavar='FILE.json', help="annotations with COCO's classes")
    parser.add_argument('--images', type=Path, required=True, metavar='DIR', help='folder of the images')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--batch', type=int, default=8, help='batch size')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--out', metavar='FILE.md', type=Path, help='write the table to this file')
    args = parser.parse_args()
    if min(args.rounds, args.threads, args.batch) < 1:
        raise UserError('--rounds, --batch and --threads must be at least 1')
    if args.out and not args.out.parent.is_dir():
        raise UserError(f'{args.out}: the folder {args.out.parent} does not exist')
    if args.out:
        check_new(args.out)
    if not args.images.is_dir():
        raise UserError(f'--images {args.images}: there is no such folder')
    try:
        count = len(json.loads(args.ann.read_text(encoding='utf-8'))['images'])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'--ann {args.ann} is not a COCO annotation file: {error}') from error
    if count <= args.batch:
        raise UserError(f'--ann {args.ann} has {count} images; there must be more than --batch ({args.batch})')

    torch.set_num_threads(args.threads)
    ours = [sys.executable, str(Path(__file__).resolve().parents[1] / 'test.py')]
    other, theirs = mmdet_evaluation()
    with tempfile.TemporaryDirectory() as name:
        folder, evaluations = Path(name), []
        test_cfg = load_config(args.config).model.test_cfg
        for label, path, tool in ((Path(args.config).stem, args.config, ours), ('MMDetection', other, theirs)):
            cfg = load_config(path)
            init_default_scope(cfg.get('default_scope', 'mmdet'))
            with user_input(path):
                data = args.ann.resolve(), args.images.resolve()
                evaluations.append(write_evaluation(label, cfg, tool, folder, *data, test_cfg, args.batch))
        report = functools.partial(print, flush=True)
        times = time_evaluations(evaluations, folder, args.rounds, args.threads, report)
    page = evaluations_markdown(times, count, args.batch)
    if args.out:
        write_new_text(args.out, page)
    else:
        print(page)


if __name__ == '__main__':
    run_tool(main)
