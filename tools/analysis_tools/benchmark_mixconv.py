"""Time the forms of MixConv2d against one another: python tools/analysis_tools/benchmark_mixconv.py."""

import argparse
from pathlib import Path
from typing import Optional

import torch

from mixdet.benchmark import mixconv, mixconv_cuda
from mixdet.benchmark.mixconv import BASELINE, KERNELS, cases
from mixdet.cli.main import run_tool
from mixdet.errors import UserError
from mixdet.layers import native, triton_ops

FORMS = {'cpu': mixconv.FORMS, 'cuda': mixconv_cuda.FORMS}


def main() -> None:
    parser = argparse.ArgumentParser(description='Time the forms of MixConv2d, interleaved, checked against float64.')
    parser.add_argument('--device', choices=FORMS, default='cpu')
    parser.add_argument('--forms', nargs='+', choices={**FORMS['cpu'], **FORMS['cuda']}, help=f'beside {BASELINE!r}')
    parser.add_argument('--dtype', nargs='+', choices=mixconv_cuda.DTYPES, help='with --device cuda (default: all)')
    parser.add_argument('--kernels', nargs='+', choices=KERNELS, default=list(KERNELS))
    parser.add_argument('--strides', nargs='+', type=int, default=[1, 2])
    parser.add_argument('--batches', nargs='+', type=int, default=[1, 8])
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--seconds', type=float, default=1.0, help='for each layer, forward and training')
    parser.add_argument('--out', metavar='FILE.md', type=Path, help='write the tables to this file')
    parser.add_argument('--plot', metavar='FILE.png', type=Path, help='draw the ratios into this file; one --dtype')
    args = parser.parse_args()
    check(args)
    torch.set_num_threads(args.threads)
    available = FORMS[args.device]
    forms = [form for form in available if form == BASELINE or form in (args.forms or available)]
    (measure_on_cuda if args.device == 'cuda' else measure_on_cpu)(args, forms)


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what cannot be done."""
    if min(args.threads, *args.strides, *args.batches) < 1:
        raise UserError('--threads, --strides and --batches must be at least 1')
    for path in (args.out, args.plot):
        if path and not path.parent.is_dir():
            raise UserError(f'{path}: the folder {path.parent} does not exist')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: PyTorch finds no CUDA GPU on this machine; --device cpu measures without')
    if args.device == 'cpu' and args.dtype:
        raise UserError('--dtype is for --device cuda: on a CPU float32 is measured')
    unknown = [form for form in args.forms or () if form not in FORMS[args.device]]
    if unknown:
        choice = ', '.join(FORMS[args.device])
        raise UserError(f'--forms {unknown[0]!r} is not for --device {args.device}, which has: {choice}')
    if args.plot and args.device == 'cuda' and len(args.dtype or mixconv_cuda.DTYPES) > 1:
        raise UserError('--plot draws one --dtype')


def measure_on_cpu(args: argparse.Namespace, forms: list[str]) -> None:
    if not native.load():
        forms = [form for form in forms if mixconv.FORMS[form][0] != 'native']
    results = []
    for case in cases(args.kernels, args.strides, args.batches):
        results.append(mixconv.measure(case, forms, args.seconds))
        report(results[-1], forms, '')
        # a long run that is stopped leaves what it has measured
        write(mixconv.markdown(results), args.out)
    finish(mixconv.markdown(results), results, args)


def measure_on_cuda(args: argparse.Namespace, forms: list[str]) -> None:
    if not triton_ops.available('cuda'):
        forms = [form for form in forms if mixconv_cuda.FORMS[form].impl != 'triton']
    timer = mixconv_cuda.EventTimer()
    copies = mixconv_cuda.bandwidth(timer)
    machine = mixconv_cuda.gpu(copies)
    results = {}
    for dtype in args.dtype or mixconv_cuda.DTYPES:
        results[dtype] = []
        for case in cases(args.kernels, args.strides, args.batches):
            torch.compiler.reset()
            result = mixconv_cuda.measure(case, forms, args.seconds, mixconv_cuda.DTYPES[dtype], timer=timer)
            results[dtype].append(result)
            report(result, forms, dtype)
            write(mixconv_cuda.markdown(results, copies, machine), args.out)
    finish(mixconv_cuda.markdown(results, copies, machine), results[dtype], args)


def report(result: mixconv.Result, forms: list[str], dtype: str) -> None:
    for part in ('forward', 'training'):
        timings = getattr(result, part)
        cells = (f'{form} {timings[form].wall:.3f} ms  ' for form in forms)
        print(f'{result.case!s:24} {part:8}', *([dtype] if dtype else []), *cells, flush=True)


def write(page: str, out: Optional[Path]) -> None:
    if out:
        out.write_text(page)


def finish(page: str, results: list[mixconv.Result], args: argparse.Namespace) -> None:
    if not args.out:
        print(page)
    if args.plot:
        mixconv.plot(results, args.plot)


if __name__ == '__main__':
    run_tool(main)
