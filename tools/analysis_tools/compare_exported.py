"""Compare exported files with their checkpoint: compare_exported.py CONFIG CHECKPOINT FILE ..."""

import argparse
import sys
from pathlib import Path

import torch

from mixdet.cli.arguments import add_common_arguments, config_from_arguments
from mixdet.cli.main import run_tool
from mixdet.cli.runner import build_runner
from mixdet.deploy.exported import ExportedDetector
from mixdet.deploy.formats.base import file_size
from mixdet.deploy.parity import LARGE_AP_LOSS, evaluate_together
from mixdet.engine.checkpoint import check_fits, read_checkpoint
from mixdet.text import markdown_cell, print


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Evaluate a checkpoint and files exported from it on the config's test set."
    )
    add_common_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('files', nargs='+', metavar='FILE', help='exported from it by tools/export.py, with NMS')
    args = parser.parse_args()

    cfg = config_from_arguments(args)
    checkpoint = read_checkpoint(args.checkpoint)
    cfg.load_from, cfg.resume = args.checkpoint, False
    runner = build_runner(cfg, args, ('test',))
    check_fits(checkpoint, runner.model, args.checkpoint)
    runner.load_or_resume()
    exported = {name: ExportedDetector(name, cfg.model.get('data_preprocessor')) for name in args.files}
    with torch.inference_mode():
        results = evaluate_together(runner, {args.checkpoint: runner.model.eval(), **exported})
    print('| file | MiB | AP | AP50 | detections | boxes within, px | scores within | without a counterpart |')
    print('|---|---|---|---|---|---|---|---|')
    for name, (numbers, difference) in results.items():
        stats = numbers.bbox.stats
        print(
            f'| {markdown_cell(Path(name).name)} | {file_size(Path(name)) / 2**20:.1f} | {stats["mAP"]:.4f} '
            f'| {stats["mAP_50"]:.4f} | {difference.detections} | {difference.boxes:.4f} '
            f'| {difference.scores:.1e} | {difference.unmatched} |'
        )
    original = results[args.checkpoint].numbers.bbox.stats['mAP']
    for name in args.files:
        loss = original - results[name].numbers.bbox.stats['mAP']
        if loss > LARGE_AP_LOSS:
            print(f'warning: {Path(name).name} loses {loss:.4f} AP', file=sys.stderr)


if __name__ == '__main__':
    run_tool(main)
