"""Time the implementations of MixConv2d against one another: python tools/analysis_tools/benchmark_mixconv.py."""

import argparse
from pathlib import Path
from typing import Optional

import torch

from mixdet.benchmark import mixconv, mixconv_cuda
from mixdet.benchmark.machine import gpu_environment
from mixdet.benchmark.mixconv import (
    BASELINE,
    DIRECTIONS,
    KERNELS,
    CaseTimings,
    Implementation,
    cases,
    mixconv_markdown,
    plot_mixconv,
    time_mixconv,
)
from mixdet.cli.main import run_tool
from mixdet.engine.atomic import check_new, write_text, writing
from mixdet.errors import UserError
from mixdet.layers import native, triton_ops
from mixdet.text import print

IMPLEMENTATIONS = {'cpu': mixconv.CPU_IMPLEMENTATIONS, 'cuda': mixconv_cuda.CUDA_IMPLEMENTATIONS}


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Time the implementations of MixConv2d in turns, after checking each against float64.'
    )
    parser.add_argument('--device', choices=IMPLEMENTATIONS, default='cpu')
    names = list(dict.fromkeys(name for each in IMPLEMENTATIONS.values() for name in each))
    parser.add_argument(
        '--impls',
        nargs='+',
        choices=names,
        metavar='IMPL',
        help=f'beside {BASELINE!r}; of {", ".join(names)} (default: all)',
    )
    parser.add_argument('--dtype', nargs='+', choices=mixconv_cuda.DTYPES, help='for --device cuda (default: all)')
    parser.add_argument('--kernels', nargs='+', choices=KERNELS, default=list(KERNELS))
    parser.add_argument('--strides', nargs='+', type=int, default=[1, 2])
    parser.add_argument('--batches', nargs='+', type=int, default=[1, 8])
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--seconds', type=float, default=1.0, help='for each layer and direction')
    parser.add_argument('--out', metavar='FILE.md', type=Path, help='write the tables to this file')
    parser.add_argument('--plot', metavar='FILE.png', type=Path, help='draw the ratios into this file')
    args = parser.parse_args()
    _check(args)
    torch.set_num_threads(args.threads)
    available = IMPLEMENTATIONS[args.device]
    wanted = args.impls or available
    chosen = {name: each for name, each in available.items() if name == BASELINE or name in wanted}
    (_measure_on_cuda if args.device == 'cuda' else _measure_on_cpu)(args, chosen)


def _check(args: argparse.Namespace) -> None:
    """Raise UserError for arguments that cannot be used together, or not on this machine."""
    if min(args.threads, *args.strides, *args.batches) < 1:
        raise UserError('--threads, --strides and --batches must be at least 1')
    for path in (args.out, args.plot):
        if path and not path.parent.is_dir():
            raise UserError(f'{path}: the folder {path.parent} does not exist')
        if path:
            check_new(path)
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: PyTorch finds no CUDA GPU on this machine; use --device cpu')
    if args.device == 'cpu' and args.dtype:
        raise UserError('--dtype is for --device cuda; on a CPU float32 is measured')
    available = IMPLEMENTATIONS[args.device]
    for name in args.impls or ():
        if name not in available:
            raise UserError(f'--impls {name!r} is not for --device {args.device}, choose from: {", ".join(available)}')
    if args.plot and args.device == 'cuda' and len(args.dtype or mixconv_cuda.DTYPES) > 1:
        raise UserError('--plot shows a single dtype; choose one with --dtype')


def _measure_on_cpu(args: argparse.Namespace, implementations: dict[str, Implementation]) -> None:
    if not native.load():
        implementations = {name: each for name, each in implementations.items() if each.impl != 'native'}
    results = []
    for case in cases(args.kernels, args.strides, args.batches):
        results.append(time_mixconv(case, implementations, args.seconds))
        _print_timings(results[-1], '')
        _write(mixconv_markdown(results), args.out)  # after each layer: an interrupted run keeps its measurements
    _finish(mixconv_markdown(results), results, args)


def _measure_on_cuda(args: argparse.Namespace, implementations: dict[str, Implementation]) -> None:
    if not triton_ops.available('cuda'):
        implementations = {name: each for name, each in implementations.items() if each.impl != 'triton'}
    timer = mixconv_cuda.EventTimer()
    bytes_per_ms = mixconv_cuda.copy_speed(timer)
    machine = gpu_environment(bytes_per_ms)
    results: dict[str, list[CaseTimings]] = {}
    for dtype in args.dtype or mixconv_cuda.DTYPES:
        results[dtype] = []
        for case in cases(args.kernels, args.strides, args.batches):
            torch.compiler.reset()
            timings = mixconv_cuda.time_mixconv_on_gpu(
                case, implementations, args.seconds, mixconv_cuda.DTYPES[dtype], timer=timer
            )
            results[dtype].append(timings)
            _print_timings(timings, dtype)
            _write(mixconv_cuda.mixconv_cuda_markdown(results, bytes_per_ms, machine), args.out)
    _finish(mixconv_cuda.mixconv_cuda_markdown(results, bytes_per_ms, machine), results[dtype], args)


def _print_timings(result: CaseTimings, dtype: str) -> None:
    for direction in DIRECTIONS:
        cells = (f'{name} {timing.wall:.3f} ms  ' for name, timing in getattr(result, direction).items())
        print(f'{result.case!s:24} {direction:8}', *([dtype] if dtype else []), *cells, flush=True)


def _write(page: str, out: Optional[Path]) -> None:
    if out:
        with writing(out):
            write_text(out, page)


def _finish(page: str, results: list[CaseTimings], args: argparse.Namespace) -> None:
    if not args.out:
        print(page)
    if args.plot:
        with writing(args.plot):
            plot_mixconv(results, args.plot)


if __name__ == '__main__':
    run_tool(main)
