"""Put one of our backbones into a config: python tools/swap_backbone.py CONFIG --backbone mixnet-s OUT.py."""

import argparse
from pathlib import Path

from mmengine.registry import init_default_scope

from mixdet.cli.hooks import add_hooks
from mixdet.cli.main import run_tool, user_input
from mixdet.engine.atomic import check_new
from mixdet.errors import UserError
from mixdet.swap import load_config_leniently, named_backbone, swap_backbone, write_config
from mixdet.text import print


def main() -> None:
    parser = argparse.ArgumentParser(description="Put one of our backbones into a detector's config.")
    parser.add_argument('config', help='config file')
    parser.add_argument('out', help='config to write (.py)')
    parser.add_argument('--backbone', required=True, metavar='NAME', help='mixnet-s, mobilenetv2-mixconv357, ...')
    parser.add_argument(
        '--no-hooks', action='store_true', help="leave out mixdet's hooks and metric: exact resume, report and so on"
    )
    parser.add_argument('--pretrained', metavar='CHECKPOINT', help='weights of the backbone')
    args = parser.parse_args()
    out = Path(args.out)
    if out.suffix != '.py':
        raise UserError(f'{out}: the config must end in .py')
    check_new(out)
    if not out.absolute().parent.is_dir():
        raise UserError(f'{out}: the folder {out.absolute().parent} does not exist')
    backbone = named_backbone(args.backbone)

    cfg = load_config_leniently(args.config)
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    with user_input(args.config):
        swap = swap_backbone(cfg, backbone, args.pretrained)
    changes = swap.changes if args.no_hooks else [*swap.changes, *add_hooks(swap.cfg)]
    comments = [f'{args.config} with {args.backbone}', *swap.notes]
    inherits = write_config(out, swap.cfg, Path(args.config), cfg, comments)
    for change in changes:
        print(change)
    for note in swap.notes:
        print(f'note: {note}')
    print(f'wrote {out}, which {"inherits from" if inherits else "has all settings of"} {args.config}')


if __name__ == '__main__':
    run_tool(main)
