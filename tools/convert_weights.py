"""Convert weights from elsewhere: python tools/convert_weights.py SOURCE OUT.pth --as KIND."""

import argparse
import math
from pathlib import Path

import numpy as np
from mmengine.config import DictAction

from mixdet.cli.arguments import add_unsafe_load
from mixdet.cli.main import run_tool, user_input
from mixdet.compat.safetensors import SUFFIX as SAFETENSORS
from mixdet.deploy.images import find_inputs, is_video, read_image
from mixdet.engine.atomic import check_new, make_folder
from mixdet.errors import UserError
from mixdet.text import print
from mixdet.weights.conversions import CONVERSIONS, convert, save_checkpoint
from mixdet.weights.label_map import read_label_map

MAX_IMAGES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description='Convert weights of TensorFlow, torchvision or timm.')
    parser.add_argument('source', help='.npz, .pb, .pth, .pt, .safetensors, a TensorFlow checkpoint, or timm:NAME')
    parser.add_argument('out', help='checkpoint to write: .pth or .safetensors')
    parser.add_argument('--as', dest='kind', choices=CONVERSIONS, required=True, help='what the weights are')
    parser.add_argument('--kernel-sizes', metavar='K', help='grow 3x3 kernels into 5, 7, "(3,5)" or "(3,5,7)"')
    parser.add_argument('--keep-ids', action='store_true', help="SSDLite: keep COCO's 90 ids instead of the 80 classes")
    names = parser.add_mutually_exclusive_group()
    names.add_argument('--label-map', metavar='FILE', help='SSDLite: names of the classes by id, .pbtxt of TensorFlow')
    names.add_argument(
        '--classes', nargs='+', default=[], metavar='NAME', help='SSDLite: names of the classes in order'
    )
    parser.add_argument('--allow', nargs='+', default=[], metavar='PATTERN', help='tensors that may be left over')
    parser.add_argument(
        '--images', metavar='DIR', help='restore folded batch-norms with the statistics of 64 images in this folder'
    )
    parser.add_argument('--licence', help='licence of the weights, stored in the checkpoint')
    add_unsafe_load(parser)
    args = parser.parse_args()
    out = Path(args.out)
    if out.suffix not in ('.pth', SAFETENSORS):
        raise UserError(f'{out}: the checkpoint must end in .pth or {SAFETENSORS}')
    check_new(out)

    images = _some_images(args.images) if args.images else []
    kernel_sizes = DictAction._parse_iterable(args.kernel_sizes) if args.kernel_sizes else None
    class_names = read_label_map(Path(args.label_map)) if args.label_map else args.classes
    with user_input(args.source):
        checkpoint = convert(args.source, args.kind, kernel_sizes, args.keep_ids, args.allow, images, class_names)
    checkpoint['meta']['licence'] = args.licence or 'not stated'
    make_folder(out.parent)
    save_checkpoint(checkpoint, out)
    meta = checkpoint['meta']
    print(f'{out}: {len(checkpoint["state_dict"])} tensors; left out: {", ".join(meta["skipped"]) or "nothing"}')
    if 'entry' in meta:
        print(f'The weights are those under {meta["entry"]!r} in the file')
    if meta['restored']:
        print(f'{len(meta["restored"])} folded batch-norms now have the statistics of {len(images)} images')
    if meta['folded']:
        print(
            f'{len(meta["folded"])} batch-norms are folded (mean 0, variance 1): right for evaluation; before training '
            'mixdet.FoldedBatchNormHook restores their statistics, or convert with --images DIR'
        )


def _some_images(folder: str) -> list[np.ndarray]:
    """Up to 64 images of the folder, spread evenly over it."""
    paths = [path for path in find_inputs([folder]) if not is_video(path)]
    if not paths:
        raise UserError(f'--images {folder}: no image found; check the path')
    return [read_image(path) for path in paths[:: math.ceil(len(paths) / MAX_IMAGES)]]


if __name__ == '__main__':
    run_tool(main)
