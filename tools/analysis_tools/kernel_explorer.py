"""The cost of kernels in the paper's ablations: python tools/analysis_tools/kernel_explorer.py --figure 5 --out DIR."""

import argparse
import json
from pathlib import Path
from typing import Optional

from mixdet.backbones.variants import FIGURES, NETWORKS
from mixdet.cli.main import run_tool
from mixdet.engine.atomic import check_new, make_folder, writing
from mixdet.errors import UserError
from mixdet.reproduction.ablations import VariantCost, plot_costs, variant_costs, write_costs_csv
from mixdet.text import Console, Table, print


def main() -> None:
    parser = argparse.ArgumentParser(description='What the kernel variants in a figure of the paper cost.')
    parser.add_argument('--network', choices=NETWORKS, default='mobilenetv2')
    parser.add_argument('--figure', type=int, choices=FIGURES, default=4, help='figure of the paper')
    parser.add_argument('--size', type=int, default=320, help='side of the image, px')
    parser.add_argument('--rounds', type=int, default=10, help='timed passes of each variant; 0: no latency')
    parser.add_argument('--results', metavar='JSON', help='{"variant": AP, ...} of trained variants')
    parser.add_argument('--out', metavar='FOLDER', help='write a CSV and a PNG there')
    args = parser.parse_args()

    if args.size < 1 or args.rounds < 0:
        raise UserError('--size must be at least 1, --rounds at least 0')

    stem = Path(args.out or '', f'{args.network}_figure{args.figure}')
    if args.out:
        make_folder(stem.parent)
        check_new(stem.with_suffix('.csv'))
        check_new(stem.with_suffix('.png'))

    costs = variant_costs(args.network, args.figure, args.size, args.rounds, _read_results(args.results))
    Console(120).print(_costs_table(costs))
    if args.out:
        with writing(stem):
            write_costs_csv(costs, stem.with_suffix('.csv'))
            plot_costs(costs, args.network, args.figure, stem.with_suffix('.png'))
        print(f'wrote {stem}.csv and {stem}.png')


def _read_results(path: Optional[str]) -> dict[str, float]:
    if not path:
        return {}
    try:
        results = json.loads(Path(path).read_text(encoding='utf-8'))
        return {str(name): float(ap) for name, ap in results.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f'--results {path}: must be a JSON file that maps variant names to AP ({error})') from error


def _costs_table(costs: list[VariantCost]) -> Table:
    table = Table('variant')
    for title in ('params', 'MACs', 'd params', 'd MACs', 'ms', 'd ms', 'AP'):
        table.add_column(title, justify='right')
    for cost in costs:
        table.add_row(
            cost.variant,
            f'{cost.params / 1e6:.3f}M',
            f'{cost.macs / 1e9:.4f}G',
            f'{cost.delta_params:+,}',
            f'{cost.delta_macs:+,}',
            *('' if value is None else f'{value:.2f}' for value in (cost.latency_ms, cost.delta_ms)),
            '-' if cost.ap is None else f'{cost.ap:.3f}',
        )
    return table


if __name__ == '__main__':
    run_tool(main)
