"""faster-coco-eval against pycocotools: python tools/analysis_tools/benchmark_coco_eval.py ANNOTATIONS DETECTIONS."""

import argparse
import contextlib
import io
import json
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from pycocotools.coco import COCO

from mixdet.benchmark.machine import environment
from mixdet.benchmark.timing import time_in_turns
from mixdet.cli.main import run_tool, user_input
from mixdet.errors import UserError
from mixdet.evaluation.coco import evaluate_coco
from mixdet.text import print

BACKENDS = ('pycocotools', 'faster-coco-eval')


def main() -> None:
    parser = argparse.ArgumentParser(description='CPU time of the two evaluators of COCO boxes, run in turns.')
    parser.add_argument('annotations', help="COCO's annotation file")
    parser.add_argument('detections', help="COCO's results file, as test_evaluator.outfile_prefix=NAME writes it")
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    if args.rounds < 1:
        raise UserError(f'--rounds {args.rounds}: must be at least 1')
    if not find_spec('faster_coco_eval'):
        raise UserError('faster-coco-eval is not installed: pip install faster-coco-eval')
    torch.set_num_threads(1)

    with user_input(args.annotations), contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth = COCO(args.annotations)
        ids = truth.getCatIds(), truth.getImgIds()
    with user_input(args.detections), open(args.detections, encoding='utf-8') as file:
        rows = json.load(file)
        evaluations = {name: partial(evaluate_coco, truth, rows, *ids, name) for name in BACKENDS}
        numbers = [evaluate().stats for evaluate in evaluations.values()]
    slow, fast = (timing.cpu for timing in time_in_turns(evaluations, 0, args.rounds).values())
    print(f'{environment()}, numpy {np.__version__}')
    print(f'{len(ids[1])} images, {len(ids[0])} classes, {len(rows)} detections; median of {args.rounds}, CPU time')
    print(f'pycocotools {slow / 1e3:.3f} s, faster-coco-eval {fast / 1e3:.3f} s, ratio {slow / fast:.1f}')
    print(f'largest difference between the 12 numbers: {abs(numbers[0] - numbers[1]).max():.1e}')


if __name__ == '__main__':
    run_tool(main)
