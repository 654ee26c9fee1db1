"""The report of a training, or a comparison of several: python tools/report.py WORK_DIR [WORK_DIR ...]."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mixdet.cli.main import run_tool, user_input
from mixdet.engine.atomic import make_folder, writing
from mixdet.errors import UserError
from mixdet.evaluation.numbers import IOU_TYPES, format_number
from mixdet.report.comparison import comparison_tables, unique_names, write_comparison
from mixdet.report.page import write_report
from mixdet.report.run import read_training_run
from mixdet.text import Console, Table, print


def main() -> None:
    parser = argparse.ArgumentParser(description='Write the report of a training, or compare several.')
    parser.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR', help='folder of a training')
    parser.add_argument('--out', type=Path, default=Path('comparison.html'), help='page of the comparison')
    args = parser.parse_args()
    if args.out.suffix != '.html':
        raise UserError(f'--out {args.out}: must end in .html')

    with user_input(' '.join(map(str, args.work_dirs))):  # a stranger's files may hold anything
        _report(args.work_dirs, args.out)


def _report(work_dirs: Sequence[Path], out: Path) -> None:
    runs = [read_training_run(work_dir) for work_dir in work_dirs]
    for note in (note for run in runs for note in run.notes):
        print(f'warning: {note}', file=sys.stderr)
    if len(runs) == 1:
        with writing(work_dirs[0]):
            print(f'Report: {write_report(work_dirs[0])}')
        return
    for iou_type, (stats, _) in comparison_tables(runs).items():
        table = Table(f'best validation, {IOU_TYPES[iou_type]}', *unique_names(runs))
        for title, values in stats:
            table.add_row(title, *(format_number(value, 4) for value in values))
        Console(160).print(table)
    make_folder(out.parent)
    with writing(out):
        print(f'Comparison: {write_comparison(runs, out)}')


if __name__ == '__main__':
    run_tool(main)
