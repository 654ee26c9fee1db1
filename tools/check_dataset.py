"""Examine data in COCO's format: python tools/check_dataset.py CONFIG.py or ANN.json."""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mixdet.cli.main import run_tool, user_input
from mixdet.datasets.issues import ERROR, KINDS, Report
from mixdet.datasets.preflight import Source, examine, sources
from mixdet.engine.atomic import write_text
from mixdet.engine.config import load_config
from mixdet.errors import UserError

LONG = 20_000  # entries that take long enough for a progress bar


def main() -> None:
    parser = argparse.ArgumentParser(description='Find what is wrong with data in COCO format. Exit status 1: errors.')
    parser.add_argument(
        'target', metavar='CONFIG.py|ANN.json', help='a config, all of whose data is checked, or a file'
    )
    parser.add_argument('--images', metavar='DIR', help='folder of the images of ANN.json')
    parser.add_argument('--decode', action='store_true', help='read every pixel of the images')
    parser.add_argument('--fix', metavar='OUT.json', help='write a repaired copy of ANN.json')
    parser.add_argument('--limit', type=int, default=10, help='faults of a kind that are listed; 0: all (default: 10)')
    args = parser.parse_args()
    is_config = args.target.endswith('.py')
    if is_config and (args.images or args.fix):
        raise UserError('--images and --fix are for an annotation file; a config names its images')
    if args.fix and Path(args.fix).exists():
        raise UserError(f'--fix {args.fix} exists already; nothing is overwritten, give another name')
    if args.images and not Path(args.images).is_dir():
        raise UserError(f'--images {args.images}: there is no such folder')

    cfg = load_config(args.target) if is_config else Config(dict())
    images = Path(args.images) if args.images else None
    todo = [Source(args.target, Path(args.target), images, None, False)]
    if is_config:
        with user_input(args.target):
            todo = list(sources(cfg, ('train', 'val', 'test')))
    errors = 0
    for source in todo:
        report, fixed = examine(source, cfg, args.decode, masks=bool(args.fix), progress=_progress)
        errors += sum(1 for _ in report.of(ERROR))
        show(report, args.limit)
        if args.fix:
            write_text(Path(args.fix), json.dumps(fixed))
            print(f'repaired copy: {args.fix}, {len(fixed["images"])} images, {len(fixed["annotations"])} boxes')
    sys.exit(1 if errors else 0)


def show(report: Report, limit: int) -> None:
    """Print the faults, at most ``limit`` of a kind, and a table of their counts."""
    listed: dict[str, int] = {}
    for fault in report.faults:
        listed[fault.kind] = listed.get(fault.kind, 0) + 1
        if not limit or listed[fault.kind] <= limit:
            print(f'{KINDS[fault.kind].severity}: {report.file}: {fault}')
    table = Table(title=f'{report.file}: {report.images} images, {report.boxes} boxes', title_justify='left')
    for header in ('', 'fault', 'count', 'what happens', 'with --fix'):
        table.add_column(header, justify='right' if header == 'count' else 'left')
    for kind, count in report.counts().most_common():
        table.add_row(KINDS[kind].severity, kind, str(count), KINDS[kind].effect, KINDS[kind].fix)
    if report.faults:
        Console(width=None if sys.stdout.isatty() else 140).print(table)
    print(f'{report.file}: {report.kept} of {report.boxes} boxes are trained, {report.left_out} are left out')


def _progress(entries: Iterable) -> Iterable:
    if len(entries) < LONG:
        return entries
    return track(entries, description='checking', console=Console(stderr=True))


if __name__ == '__main__':
    run_tool(main)
