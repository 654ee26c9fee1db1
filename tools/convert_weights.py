"""Other people's weights into ours: python tools/convert_weights.py SOURCE OUT.pth --as KIND."""

import argparse
from pathlib import Path

import torch
from mmengine.config import DictAction

from mixdet.engine.cli import run_tool, user_input
from mixdet.errors import UserError
from mixdet.weights.kinds import KINDS, convert


def main() -> None:
    parser = argparse.ArgumentParser(description='Convert weights of TensorFlow, torchvision or timm.')
    parser.add_argument('source', help='file of weights: .npz by TensorFlow variable name, .pth or .pt')
    parser.add_argument('out', help='checkpoint to write (.pth)')
    parser.add_argument('--as', dest='kind', choices=KINDS, required=True, help='what the weights are')
    parser.add_argument('--kernel-sizes', metavar='K', help='grow 3x3 kernels into 5, 7, "(3,5)" or "(3,5,7)"')
    parser.add_argument('--keep-ids', action='store_true', help="SSDLite: keep COCO's 90 ids instead of the 80 classes")
    parser.add_argument('--allow', nargs='+', default=[], metavar='PATTERN', help='tensors that may stay unused')
    parser.add_argument('--licence', help="the weights' licence, noted in the checkpoint")
    args = parser.parse_args()
    if Path(args.out).suffix != '.pth':
        raise UserError(f'{args.out}: the checkpoint must end in .pth')
    if Path(args.out).exists():
        raise UserError(f'{args.out} exists already; choose another name or remove it')

    kernel_sizes = DictAction._parse_iterable(args.kernel_sizes) if args.kernel_sizes else None
    with user_input(args.source):
        checkpoint = convert(args.source, args.kind, kernel_sizes, args.keep_ids, args.allow)
    checkpoint['meta']['licence'] = args.licence or 'not stated'
    torch.save(checkpoint, args.out)
    skipped = checkpoint['meta']['skipped']
    print(f'{args.out}: {len(checkpoint["state_dict"])} tensors; left out: {", ".join(skipped) or "nothing"}')


if __name__ == '__main__':
    run_tool(main)
