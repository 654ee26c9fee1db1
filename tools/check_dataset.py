"""Check data in COCO format: python tools/check_dataset.py CONFIG.py or ANN.json."""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from mmengine.config import Config
from rich.progress import track

from mixdet.cli.main import run_tool, user_input
from mixdet.datasets.issues import ERROR, ISSUE_KINDS, IssueLog
from mixdet.datasets.preflight import CocoFile, coco_files, examine
from mixdet.engine.atomic import write_text
from mixdet.engine.config import load_config
from mixdet.errors import UserError
from mixdet.text import Console, Table, print

LONG = 20_000  # entries from which on a progress bar is shown


def main() -> None:
    parser = argparse.ArgumentParser(description='Find the issues of data in COCO format. Exit status 1: errors.')
    parser.add_argument('target', metavar='CONFIG.py|ANN.json', help='a config, to check all its data, or a file')
    parser.add_argument('--images', metavar='DIR', help='image folder of ANN.json')
    parser.add_argument('--decode', action='store_true', help='decode every image')
    parser.add_argument('--fix', metavar='OUT.json', help='write a repaired copy of ANN.json')
    parser.add_argument('--limit', type=int, default=10, help='issues listed of each kind; 0: all (default: 10)')
    args = parser.parse_args()
    is_config = args.target.endswith('.py')
    if is_config and (args.images or args.fix):
        raise UserError('--images and --fix are for an annotation file; a config names its own images')
    if args.fix and Path(args.fix).exists():
        raise UserError(f'--fix {args.fix} exists already; nothing is overwritten, choose another name')
    if args.images and not Path(args.images).is_dir():
        raise UserError(f'--images {args.images}: the folder does not exist')

    cfg = load_config(args.target) if is_config else Config(dict())
    images = Path(args.images) if args.images else None
    files = [CocoFile(args.target, Path(args.target), images, None, False)]
    if is_config:
        with user_input(args.target):
            files = list(coco_files(cfg, ('train', 'val', 'test')))
        if not files:
            print(
                f'{args.target}: nothing to check: its data are not in COCO format, lie in remote storage, or are the '
                'demo set before its first use, which draws it'
            )
    errors = 0
    for file in files:
        log, fixed = examine(file, cfg, args.decode, segmentations=bool(args.fix), progress=_progress)
        errors += sum(1 for _ in log.of(ERROR))
        show(log, args.limit)
        if args.fix:
            write_text(Path(args.fix), json.dumps(fixed))
            print(f'repaired copy: {args.fix}, {len(fixed["images"])} images, {len(fixed["annotations"])} boxes')
    sys.exit(1 if errors else 0)


def show(log: IssueLog, limit: int) -> None:
    """Print the issues, at most ``limit`` of each kind (0: all), and a table of their counts."""
    listed: dict[str, int] = {}
    for issue in log.issues:
        listed[issue.kind] = listed.get(issue.kind, 0) + 1
        if not limit or listed[issue.kind] <= limit:
            print(f'{ISSUE_KINDS[issue.kind].severity}: {log.file}: {issue}')
    table = Table(title=f'{log.file}: {log.images} images, {log.boxes} boxes')
    for header in ('severity', 'issue', 'count', 'effect', 'with --fix'):
        table.add_column(header, justify='right' if header == 'count' else 'left')
    for name, count in log.counts().most_common():
        kind = ISSUE_KINDS[name]
        table.add_row(kind.severity, name, str(count), kind.effect, kind.fix)
    if log.issues:
        Console(140).print(table)
    print(f'{log.file}: {log.trained} of {log.boxes} boxes are trained, {log.left_out} are left out')


def _progress(entries: Iterable) -> Iterable:
    if len(entries) < LONG:
        return entries
    return track(entries, description='checking', console=Console(stderr=True))


if __name__ == '__main__':
    run_tool(main)
