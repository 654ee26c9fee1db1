"""Time the forms of MixConv2d against one another: python tools/benchmark_mixconv.py."""

import argparse
from pathlib import Path

import torch

from mixdet.analysis.speed import BASELINE, FORMS, KERNELS, cases, markdown, measure, plot
from mixdet.engine.cli import run_tool
from mixdet.errors import UserError
from mixdet.layers import native


def main() -> None:
    parser = argparse.ArgumentParser(description='Time the forms of MixConv2d, interleaved, checked against float64.')
    parser.add_argument('--forms', nargs='+', choices=FORMS, default=list(FORMS), help=f'beside {BASELINE!r}')
    parser.add_argument('--kernels', nargs='+', choices=KERNELS, default=list(KERNELS))
    parser.add_argument('--strides', nargs='+', type=int, default=[1, 2])
    parser.add_argument('--batches', nargs='+', type=int, default=[1, 8])
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--seconds', type=float, default=1.0, help='for each layer, forward and training')
    parser.add_argument('--out', metavar='FILE.md', type=Path, help='write the tables to this file')
    parser.add_argument('--plot', metavar='FILE.png', type=Path, help='draw the ratios into this file')
    args = parser.parse_args()
    if min(args.threads, *args.strides, *args.batches) < 1:
        raise UserError('--threads, --strides and --batches must be at least 1')
    for path in (args.out, args.plot):
        if path and not path.parent.is_dir():
            raise UserError(f'{path}: the folder {path.parent} does not exist')
    torch.set_num_threads(args.threads)
    forms = [form for form in FORMS if form == BASELINE or form in args.forms]
    if not native.load():
        forms = [form for form in forms if FORMS[form][0] != 'native']

    results = []
    for case in cases(args.kernels, args.strides, args.batches):
        results.append(measure(case, forms, args.seconds))
        for part in ('forward', 'training'):
            timings = getattr(results[-1], part)
            print(f'{case!s:24} {part:8}', *(f'{form} {timings[form].wall:.3f} ms  ' for form in forms), flush=True)
        # a long run that is stopped leaves what it has measured
        if args.out:
            args.out.write_text(markdown(results))
    if not args.out:
        print(markdown(results))
    if args.plot:
        plot(results, args.plot)


if __name__ == '__main__':
    run_tool(main)
