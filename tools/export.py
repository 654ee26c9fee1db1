"""Export a detector to one file: python tools/export.py CONFIG CHECKPOINT --format onnx --out FILE."""

import argparse
from pathlib import Path

from mixdet.cli.main import run_tool, user_input
from mixdet.deploy.export import SUFFIXES, check_target, describe, export, verification_images
from mixdet.deploy.exported import ExportedDetector, load_exported
from mixdet.deploy.images import find_inputs, read_image
from mixdet.deploy.inference import Detector
from mixdet.deploy.parity import arrays, compare
from mixdet.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description='Export a detector to one file that runs without mixdet.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--format', choices=SUFFIXES, default='onnx', help='kind of file')
    parser.add_argument('--out', type=Path, required=True, help=f'file to write: {", ".join(SUFFIXES.values())}')
    parser.add_argument('--nms', action=argparse.BooleanOptionalAction, default=True, help='decode and NMS inside')
    parser.add_argument('--dynamic-batch', action='store_true', help='any number of images at a time')
    parser.add_argument('--half', action='store_true', help='network in half precision')
    parser.add_argument('--int8', metavar='DIR', help='ONNX: quantise, calibrated on the images in this folder')
    parser.add_argument('--images', nargs='+', help="images to verify on (default: the first of the config's test set)")
    args = parser.parse_args()
    check_target(args.out, args.format)
    if args.int8 and (args.format != 'onnx' or args.half):
        raise UserError('--int8 goes with --format onnx and without --half')

    with user_input(args.config):
        detector = Detector(args.config, args.checkpoint, score_thr=0.05, fuse=False)
        metadata = describe(detector, args.config, args.nms)
    images = find_inputs(args.images)[:8] if args.images else verification_images(detector.cfg)
    pictures = [read_image(path) for path in images]
    originals = [arrays(detector.predict_samples([picture])[0]) for picture in pictures]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    export(detector, metadata, args.out, args.format, args.dynamic_batch, args.half)
    if args.int8:
        from mixdet.deploy.quantize import quantize

        quantize(args.out, [read_image(path) for path in find_inputs([args.int8])], detector)
    load_exported(args.out)
    print(f'{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB, input {metadata.input_size}, {args.format}')
    if not args.nms or not pictures:
        print('not verified: ' + ('without NMS there are no detections' if pictures else 'no images; give --images'))
        return
    detector.model = ExportedDetector(str(args.out), detector.cfg.model.data_preprocessor)
    exported = [arrays(detector.predict_samples([picture])[0]) for picture in pictures]
    difference = compare(originals, exported)
    print(
        f'verified on {len(pictures)} images, {difference.detections} detections: boxes within {difference.boxes:.4f} '
        f'px, scores within {difference.scores:.2e}, {difference.unmatched} without a counterpart'
    )


if __name__ == '__main__':
    run_tool(main)
