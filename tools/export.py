"""Export a detector to one file: python tools/export.py CONFIG CHECKPOINT --format onnx --out FILE."""

import argparse
import sys
from pathlib import Path

from mixdet.cli.arguments import add_unsafe_load
from mixdet.cli.main import run_tool, user_input
from mixdet.deploy.export import SUFFIXES, check_export_path, export, export_metadata, verification_images
from mixdet.deploy.exported import ExportedDetector, load_exported
from mixdet.deploy.images import find_inputs, read_image
from mixdet.deploy.inference import Detector
from mixdet.deploy.parity import LARGE_SHARE, DetectionDifference, compare_detections, detection_arrays
from mixdet.engine.atomic import make_folder, new_file
from mixdet.errors import UserError
from mixdet.text import print


def main() -> None:
    parser = argparse.ArgumentParser(description='Export a detector to one file that runs without mixdet.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--format', choices=SUFFIXES, default='onnx', help='format of the file')
    parser.add_argument('--out', type=Path, required=True, help=f'file to write: {", ".join(SUFFIXES.values())}')
    parser.add_argument('--nms', action=argparse.BooleanOptionalAction, default=True, help='include NMS in the file')
    parser.add_argument('--dynamic-batch', action='store_true', help='accept batches of any size')
    parser.add_argument('--half', action='store_true', help='network in half precision')
    parser.add_argument('--int8', metavar='DIR', help='ONNX: quantise, calibrated on the images in this folder')
    parser.add_argument('--images', nargs='+', help="images to verify on (default: the first of the config's test set)")
    add_unsafe_load(parser)
    args = parser.parse_args()
    check_export_path(args.out, args.format, args.half)
    if args.int8 and (args.format != 'onnx' or args.half):
        raise UserError('--int8 works with --format onnx and without --half')

    calibration_images = [read_image(path) for path in find_inputs([args.int8])] if args.int8 else []
    with user_input(args.config):
        detector = Detector(args.config, args.checkpoint, score_thr=0.05, fuse=False)
        metadata = export_metadata(detector, args.config, args.nms)
    paths = find_inputs(args.images)[:8] if args.images else verification_images(detector.cfg)
    images = [read_image(path) for path in paths]
    originals = [detection_arrays(detector.predict_samples([image])[0]) for image in images]
    make_folder(args.out.parent)
    with new_file(args.out) as part:  # what fails, also in the quantisation, leaves no file of that name
        export(detector, metadata, part, args.format, args.dynamic_batch, args.half)
        if args.int8:
            from mixdet.deploy.quantize import quantize

            quantize(part, calibration_images, detector)
        load_exported(part, trusted=True)
    print(f'{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB, input {metadata.input_size}, {args.format}')
    if not args.nms or not images:
        print('not verified: ' + ('without NMS there are no detections' if images else 'no images; give --images'))
        return
    detector.model = ExportedDetector(str(args.out), detector.cfg.model.data_preprocessor, trusted=True)
    exported = [detection_arrays(detector.predict_samples([image])[0]) for image in images]
    difference = compare_detections(originals, exported)
    _report(difference, len(images), bool(args.int8))


def _report(difference: DetectionDifference, images: int, int8: bool) -> None:
    """Print how far the file's detections are from the detector's, and whether that is much."""
    if not difference.detections and not difference.unmatched:
        print(f'not verified: no detection on {images} images; give --images with objects of the classes')
        return
    print(
        f'{"verified" if difference.is_rounding else "differs"} on {images} images, {difference.detections} '
        f'detections: boxes within {difference.boxes:.4f} px, scores within {difference.scores:.2e}, '
        f'{difference.unmatched} without a counterpart'
    )
    if int8 and difference.share > LARGE_SHARE:
        print(
            f'warning: 8 bits change much, {difference.unmatched} detections have no counterpart; compare the AP with '
            'tools/analysis_tools/compare_exported.py, calibrate on more typical images, or use --half',
            file=sys.stderr,
        )
    elif not int8 and not difference.is_rounding:
        print(
            'warning: the file does not compute what the detector does; compare the AP with '
            'tools/analysis_tools/compare_exported.py before you use it',
            file=sys.stderr,
        )


if __name__ == '__main__':
    run_tool(main)
