"""Parameters and multiply-adds of a config's detector: python tools/analysis_tools/complexity.py CONFIG."""

import argparse

from mmengine.registry import init_default_scope

from mixdet.cli.main import run_tool, user_input
from mixdet.engine.config import load_config
from mixdet.errors import UserError
from mixdet.reproduction.counting import CONVENTIONS, count_config
from mixdet.text import Console, Table, print


def main() -> None:
    parser = argparse.ArgumentParser(description='Count parameters and multiply-adds from the layers that run.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--shape', type=int, nargs=2, default=(320, 320), metavar=('H', 'W'), help='input size, px')
    parser.add_argument('--by-layer', action='store_true', help='one line for each convolution and linear layer')
    parser.add_argument(
        '--convention',
        choices=CONVENTIONS,
        default='real',
        help="real: all parameters, all convolutions and linear layers; paper: the rule of the paper's Table 1",
    )
    args = parser.parse_args()
    if min(args.shape) < 1:
        raise UserError('--shape must be at least 1 px')

    cfg = load_config(args.config)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with user_input(args.config):
        cost = count_config(cfg, tuple(args.shape), args.convention)
    if args.by_layer:
        table = Table('layer', 'kind')
        table.add_column('weights', justify='right')
        table.add_column('MACs', justify='right')
        for layer in cost.layers:
            table.add_row(layer.name, layer.kind, f'{layer.weights:,}', f'{layer.macs:,}')
        Console(120).print(table)
    height, width = args.shape
    print(f'params {cost.params / 1e6:.4f} M   MACs {cost.macs / 1e9:.4f} G   ({args.convention}, {height}x{width})')
    for note in cost.notes:
        print(f'note: {note}')


if __name__ == '__main__':
    run_tool(main)
