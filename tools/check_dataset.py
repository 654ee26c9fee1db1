"""Check data in COCO format: python tools/check_dataset.py CONFIG.py or ANN.json."""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from mmengine.config import Config
from rich.progress import track

from mixdet.cli.main import run_tool, user_input
from mixdet.datasets.annotations import Repair
from mixdet.datasets.files import CocoFile, coco_files
from mixdet.datasets.issues import ERROR, ISSUE_KINDS, IssueLog
from mixdet.datasets.preflight import examine
from mixdet.engine.atomic import check_new, make_folder, write_new_text
from mixdet.engine.config import load_config
from mixdet.engine.validation import check_evaluators
from mixdet.errors import UserError
from mixdet.text import Console, Table, print

LONG = 20_000  # entries from which on a progress bar is shown


def main() -> None:
    parser = argparse.ArgumentParser(description='Find the issues of data in COCO format. Exit status 1: errors.')
    parser.add_argument('target', metavar='CONFIG.py|ANN.json', help='a config, to check all its data, or a file')
    parser.add_argument('--images', metavar='DIR', help='image folder of ANN.json')
    parser.add_argument('--decode', action='store_true', help='decode every image')
    parser.add_argument('--fix', metavar='OUT.json', help='write a repaired copy of ANN.json')
    parser.add_argument(
        '--crowds-to-objects', action='store_true', help='in the copy, every crowd is an object, which is trained'
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        default=(),
        help='in the copy, these categories come first, in this order',
    )
    parser.add_argument('--limit', type=int, default=10, help='issues listed of each kind; 0: all (default: 10)')
    args = parser.parse_args()
    is_config = args.target.endswith('.py')
    if is_config and (args.images or args.fix):
        raise UserError('--images and --fix are for an annotation file; a config names its own images')
    if (args.crowds_to_objects or args.classes) and not args.fix:
        raise UserError('--crowds-to-objects and --classes change a copy: give its name with --fix OUT.json')
    if args.fix:
        check_new(Path(args.fix), '--fix')
    if args.images and not Path(args.images).is_dir():
        raise UserError(f'--images {args.images}: the folder does not exist')

    cfg = load_config(args.target) if is_config else Config(dict())
    images = Path(args.images) if args.images else None
    files = [CocoFile(args.target, Path(args.target), images, None)]
    if is_config:
        unchecked: list[str] = []
        with user_input(args.target):
            check_evaluators(cfg, ('train', 'val', 'test'))
            files = list(coco_files(cfg, ('train', 'val', 'test'), unchecked))
        for line in unchecked:
            print(line)
        if not files:
            print(f'{args.target}: nothing to check')
    errors = 0
    repair = Repair(crowds_to_objects=args.crowds_to_objects, order=args.classes)
    for file in files:
        log, fixed = examine(file, cfg, args.decode, bool(args.fix), _progress, repair)
        errors += sum(1 for _ in log.of(ERROR))
        show(log, args.limit)
        if args.fix:
            write_copy(Path(args.fix), fixed, log, args.classes)
    sys.exit(1 if errors else 0)


def write_copy(path: Path, fixed: dict, log: IssueLog, classes: Iterable[str]) -> None:
    """Write the repaired copy. Raises UserError if it would lack what makes the file useful."""
    missing = set(classes) - {category['name'] for category in fixed['categories']}
    if missing:
        raise UserError(f'--classes: {log.file} has no category {", ".join(map(repr, sorted(missing)))}')
    if not fixed['images']:
        raise UserError(f'--fix: no image of {log.file} can be used, {path} is not written; see the issues above')
    if not fixed['annotations'] and (log.boxes or log.counts()['invalid section']):
        raise UserError(f'--fix: no box of {log.file} can be kept, {path} is not written; see the issues above')
    make_folder(path.parent)
    write_new_text(path, json.dumps(fixed))
    print(f'repaired copy: {path}, {len(fixed["images"])} images, {len(fixed["annotations"])} boxes')


def show(log: IssueLog, limit: int) -> None:
    """Print the issues, at most ``limit`` of each kind (0: all), and a table of their counts."""
    listed: dict[str, int] = {}
    first = {}
    for issue in log.issues:
        first.setdefault(issue.kind, issue)
        listed[issue.kind] = listed.get(issue.kind, 0) + 1
        if not limit or listed[issue.kind] <= limit:
            print(f'{issue.severity}: {log.file}: {issue}')
    table = Table(title=f'{log.file}: {log.images} images, {log.boxes} boxes')
    for header in ('severity', 'issue', 'count', 'effect', 'with --fix'):
        table.add_column(header, justify='right' if header == 'count' else 'left')
    for name, count in log.counts().most_common():
        table.add_row(first[name].severity, name, str(count), first[name].effect, ISSUE_KINDS[name].fix)
    if log.issues:
        Console(140).print(table)
    print(log.summary())


def _progress(entries: Iterable) -> Iterable:
    if len(entries) < LONG:
        return entries
    return track(entries, description='checking', console=Console(stderr=True))


if __name__ == '__main__':
    run_tool(main)
