"""The paper's Table 1 from our configs: python tools/table1.py [--train --data-root data/coco]."""

import argparse
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mixdet.cli.main import run_tool, user_input
from mixdet.engine.atomic import write_text
from mixdet.errors import UserError
from mixdet.evaluation.results import read_results
from mixdet.reproduction.protocol import DatasetPaths, ShortSchedule, protocol_config, train_and_test
from mixdet.reproduction.table1 import (
    ROW_NAMES,
    Table1Row,
    add_latency,
    count_row,
    find_config,
    markdown_table,
    merge_results,
    table1_csv,
    table_cells,
)
from mixdet.text import Console, Table, print

TOOLS = Path(__file__).resolve().parent
CONFIGS = TOOLS.parent / 'configs'


def main() -> None:
    args = _parse_arguments()
    init_default_scope('mmdet')
    paths = [find_config(CONFIGS, name) for name in args.rows]
    if args.train:
        _train(paths, args)

    rows = []
    for path in paths:
        with user_input(str(path)):
            rows.append(count_row(path))
    if args.rounds:
        add_latency(rows, args.rounds)
    merge_results(rows, read_results(args.results or args.work_dir))
    _show(rows)
    _write(rows, args.work_dir)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The paper's Table 1: counted, timed and, with --train, trained.")
    parser.add_argument('--rows', nargs='+', default=ROW_NAMES, metavar='ROW', help='names of rows, or config files')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/table1'), help='where the files go')
    parser.add_argument('--results', type=Path, help='folder with evaluations of tools/test.py (default: --work-dir)')
    parser.add_argument('--rounds', type=int, default=10, help='timed passes of each network; 0: no latency')
    train = parser.add_argument_group('training')
    train.add_argument('--train', action='store_true', help='train and evaluate every row first; continues if begun')
    train.add_argument('--data-root', help='folder of the data set')
    for part in ('train', 'val'):
        default = DatasetPaths._field_defaults
        train.add_argument(f'--{part}-ann', default=default[f'{part}_ann'], help='annotation file in it')
        train.add_argument(f'--{part}-images', default=default[f'{part}_images'], help='image folder in it')
    train.add_argument('--epochs', type=int, default=0, help="on a small data set; 0: the configs' 600 epochs on COCO")
    train.add_argument('--seeds', type=int, nargs='+', default=[0], help='one training for each')
    train.add_argument('--gpus', type=int, default=0, help='number of processes, one per GPU; 0: a single process')
    args = parser.parse_args()
    if args.train != bool(args.data_root):
        raise UserError('--train and --data-root belong together: give both or neither')
    if min(args.rounds, args.epochs, args.gpus, *args.seeds) < 0:
        raise UserError('--rounds, --epochs, --seeds and --gpus must not be negative')
    return args


def _train(paths: list[Path], args: argparse.Namespace) -> None:
    """Train and evaluate the configs in ``paths`` with every seed, where that has not been done."""
    data = DatasetPaths(args.data_root, args.train_ann, args.train_images, args.val_ann, args.val_images)
    small = Config.fromfile(CONFIGS / '_base_/schedules/schedule_small.py')
    schedule = ShortSchedule(small, args.epochs) if args.epochs else None
    for seed in args.seeds:
        for path in paths:
            with user_input(str(path)):
                cfg = protocol_config(path, data, seed, schedule)
            train_and_test(cfg, path.stem, args.work_dir / f'seed{seed}' / path.stem, TOOLS, args.gpus)


def _show(rows: list[Table1Row]) -> None:
    heads, cells = table_cells(rows)
    table = Table(*heads)
    for line in cells:
        table.add_row(*line)
    Console(160).print(table)


def _write(rows: list[Table1Row], folder: Path) -> None:
    from mixdet.reproduction.table1_plot import plot_table1  # matplotlib is slow to import

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / 'table1.md', markdown_table(*table_cells(rows)))
    write_text(folder / 'table1.csv', table1_csv(rows))
    plot_table1(rows, folder / 'table1.png')
    print(f'Files: {folder}/table1.md, .csv, .png')


if __name__ == '__main__':
    run_tool(main)
