"""Compare exported files with their checkpoint: compare_exported.py CONFIG CHECKPOINT FILE ..."""

import argparse
import sys
from pathlib import Path

import torch

from mixdet.benchmark.exported import latencies, memory
from mixdet.cli.arguments import add_common_arguments, config_from_arguments
from mixdet.cli.main import run_tool
from mixdet.cli.runner import build_runner
from mixdet.deploy.exported import ExportedDetector
from mixdet.deploy.formats.base import file_size
from mixdet.deploy.fusing import optimize_for_inference
from mixdet.deploy.parity import LARGE_AP_LOSS, evaluate_together
from mixdet.engine.atomic import check_new, make_folder, write_new_text
from mixdet.engine.checkpoint import check_fits, read_checkpoint
from mixdet.errors import UserError
from mixdet.text import markdown_cell, print

COLUMNS = ('file', 'MiB', 'AP', 'AP50', 'detections', 'boxes within, px', 'scores within', 'without a counterpart')


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Evaluate a checkpoint and files exported from it on the config's test set, and time them."
    )
    add_common_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('files', nargs='+', metavar='FILE', help='exported from it by tools/export.py')
    parser.add_argument('--out', type=Path, metavar='FILE.md', help='also write the table to this file')
    parser.add_argument(
        '--seconds', type=float, default=0, help='time all of them in turn for so long, for each of --threads'
    )
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2], help='numbers of threads (default: 1 2)')
    args = parser.parse_args()
    if min(args.threads) < 1:
        raise UserError(f'--threads {min(args.threads)}: must be at least 1')
    if args.out:
        check_new(args.out, '--out')
        make_folder(args.out.parent)

    cfg = config_from_arguments(args)
    checkpoint = read_checkpoint(args.checkpoint)
    cfg.load_from, cfg.resume = args.checkpoint, False
    runner = build_runner(cfg, args, ('test',))
    check_fits(checkpoint, runner.model, args.checkpoint)
    runner.load_or_resume()
    original = runner.model.eval()
    preprocessor = cfg.model.get('data_preprocessor')
    exported = {name: ExportedDetector(name, preprocessor) for name in args.files}
    with torch.inference_mode():
        results = evaluate_together(runner, {args.checkpoint: original, **exported})
    rows = {}
    for name, (numbers, difference) in results.items():
        stats = numbers.bbox.stats
        rows[name] = [
            markdown_cell(Path(name).name),
            f'{file_size(Path(name)) / 2**20:.1f}',
            f'{stats["mAP"]:.4f}',
            f'{stats["mAP_50"]:.4f}',
            str(difference.detections),
            f'{difference.boxes:.4f}',
            f'{difference.scores:.1e}',
            str(difference.unmatched),
        ]
    columns = list(COLUMNS)
    if args.seconds > 0:
        fused = optimize_for_inference(original)
        openers = {args.checkpoint: lambda threads: fused} | {
            name: lambda threads, name=name: ExportedDetector(name, preprocessor, threads=threads)
            for name in args.files
        }
        batch = next(iter(runner.test_dataloader))
        for threads in args.threads:
            columns.append(f'ms, {threads} thread{"s" * (threads > 1)}')
            for name, timing in latencies(openers, batch, threads, args.seconds).items():
                rows[name].append(f'{timing.wall:.1f}')
        columns.append('memory, MiB')
        for name, row in rows.items():
            row.append(f'{memory(Path(name)):.0f}' if name in exported else '')
    text = '\n'.join(f'| {" | ".join(row)} |' for row in (columns, ['---'] * len(columns), *rows.values()))
    print(text)
    if args.out:
        write_new_text(args.out, text + '\n')
    for name in args.files:
        loss = results[args.checkpoint].numbers.bbox.stats['mAP'] - results[name].numbers.bbox.stats['mAP']
        if loss > LARGE_AP_LOSS:
            print(f'warning: {Path(name).name} loses {loss:.4f} AP', file=sys.stderr)


if __name__ == '__main__':
    run_tool(main)
