"""Convert weights from elsewhere: python tools/convert_weights.py SOURCE OUT.pth --as KIND."""

import argparse
from pathlib import Path

from mmengine.config import DictAction

from mixdet.cli.main import run_tool, user_input
from mixdet.compat.safetensors import SUFFIX as SAFETENSORS
from mixdet.errors import UserError
from mixdet.text import print
from mixdet.weights.conversions import CONVERSIONS, convert, save_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description='Convert weights of TensorFlow, torchvision or timm.')
    parser.add_argument('source', help='.npz, .pb, .pth, .pt, .safetensors, a TensorFlow checkpoint, or timm:NAME')
    parser.add_argument('out', help='checkpoint to write: .pth or .safetensors')
    parser.add_argument('--as', dest='kind', choices=CONVERSIONS, required=True, help='what the weights are')
    parser.add_argument('--kernel-sizes', metavar='K', help='grow 3x3 kernels into 5, 7, "(3,5)" or "(3,5,7)"')
    parser.add_argument('--keep-ids', action='store_true', help="SSDLite: keep COCO's 90 ids instead of the 80 classes")
    parser.add_argument('--allow', nargs='+', default=[], metavar='PATTERN', help='tensors that may be left over')
    parser.add_argument('--licence', help='licence of the weights, stored in the checkpoint')
    args = parser.parse_args()
    out = Path(args.out)
    if out.suffix not in ('.pth', SAFETENSORS):
        raise UserError(f'{out}: the checkpoint must end in .pth or {SAFETENSORS}')
    if out.exists():
        raise UserError(f'{out} exists already; choose another name or remove it')

    kernel_sizes = DictAction._parse_iterable(args.kernel_sizes) if args.kernel_sizes else None
    with user_input(args.source):
        checkpoint = convert(args.source, args.kind, kernel_sizes, args.keep_ids, args.allow)
    checkpoint['meta']['licence'] = args.licence or 'not stated'
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(checkpoint, out)
    skipped = checkpoint['meta']['skipped']
    print(f'{out}: {len(checkpoint["state_dict"])} tensors; left out: {", ".join(skipped) or "nothing"}')


if __name__ == '__main__':
    run_tool(main)
