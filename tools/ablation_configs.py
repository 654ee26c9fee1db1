"""Training configs for the paper's ablations: python tools/ablation_configs.py FOLDER --figure 5."""

import argparse
from pathlib import Path

from mixdet.backbones.variants import FIGURES, NETWORKS, variants
from mixdet.cli.main import run_tool
from mixdet.errors import UserError
from mixdet.text import print

CONFIG = """# Variant {name} of the paper's figure {figure}
_base_ = 'mixdet::ssdlite_{network}/ssdlite_{network}-baseline3x3_8xb24-600e_coco.py'
model = dict(backbone=dict({options}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description='Write one SSDLite config for each variant in a figure of the paper.')
    parser.add_argument('out', help='folder to write to')
    parser.add_argument('--network', choices=NETWORKS, default='mobilenetv2')
    parser.add_argument('--figure', type=int, choices=FIGURES, required=True)
    args = parser.parse_args()
    folder = Path(args.out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f'{folder} is a file; choose a folder')
    configs = {
        folder / f'ssdlite_{args.network}-{name}_8xb24-600e_coco.py': CONFIG.format(
            name=name,
            figure=args.figure,
            network=args.network,
            options=', '.join(f'{key}={value!r}' for key, value in options.items()),
        )
        for name, options in variants(args.network, args.figure).items()
    }
    taken = [path for path, text in configs.items() if path.exists() and path.read_text(encoding='utf-8') != text]
    if taken:
        raise UserError(f'{taken[0]} already exists with other contents; choose another folder')
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in configs.items():
        path.write_text(text, encoding='utf-8')
    print(f'wrote {len(configs)} configs to {folder}')


if __name__ == '__main__':
    run_tool(main)
