"""Export a detector to one file: python tools/export.py CONFIG CHECKPOINT --format onnx --out FILE."""

import argparse
import sys
from pathlib import Path

from mixdet.cli.arguments import add_unsafe_load
from mixdet.cli.main import run_tool, user_input
from mixdet.deploy.export import CalibrationImages, check_export, export, export_metadata, verification_images
from mixdet.deploy.exported import ExportedDetector
from mixdet.deploy.formats import FORMATS, suffixes
from mixdet.deploy.formats.base import FP16, FP32, INT8, PRECISIONS, file_size
from mixdet.deploy.images import find_inputs, read_image
from mixdet.deploy.inference import Detector
from mixdet.deploy.parity import LARGE_SHARE, DetectionDifference, compare_detections, detection_arrays
from mixdet.engine.atomic import make_folder
from mixdet.errors import UserError
from mixdet.text import print


def main() -> None:
    parser = argparse.ArgumentParser(description='Export a detector to one file that runs without mixdet.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--format', choices=FORMATS, default='onnx', help='format of the file')
    parser.add_argument('--out', type=Path, required=True, help=f'file or folder to write: {suffixes()}')
    parser.add_argument(
        '--nms', action=argparse.BooleanOptionalAction, default=True, help='include NMS where the format can hold it'
    )
    parser.add_argument('--dynamic-batch', action='store_true', help='accept batches of any size')
    parser.add_argument('--precision', choices=PRECISIONS, help='of the network (default: fp32)')
    parser.add_argument('--calibrate', metavar='DIR', help='int8: calibrate on the images in this folder')
    parser.add_argument('--half', action='store_true', help='short for --precision fp16')
    parser.add_argument('--int8', metavar='DIR', help='short for --precision int8 --calibrate DIR')
    parser.add_argument('--images', nargs='+', help="images to verify on (default: the first of the config's test set)")
    add_unsafe_load(parser)
    args = parser.parse_args()
    precision, folder = _precision(args)
    row = check_export(args.out, args.format, precision, args.dynamic_batch)

    calibration_images = [read_image(path) for path in find_inputs([folder])] if folder else []
    with user_input(args.config):
        detector = Detector(args.config, args.checkpoint, score_thr=0.05, fuse=False)
        metadata = export_metadata(detector, args.config, args.nms)
    paths = find_inputs(args.images)[:8] if args.images else verification_images(detector.cfg)
    images = [read_image(path) for path in paths]
    originals = [detection_arrays(detector.predict_samples([image])[0]) for image in images]
    make_folder(args.out.parent)
    calibration = CalibrationImages(detector, calibration_images)
    metadata = export(detector, metadata, args.out, args.format, args.dynamic_batch, precision, calibration)
    size = file_size(args.out) / 2**20
    nms = 'with NMS' if metadata.nms else 'NMS outside'
    print(f'{args.out}: {size:.1f} MiB, input {metadata.input_size}, {args.format}, {precision}, {nms}')
    reason = _why_not(args.nms and (metadata.nms or metadata.thresholds is not None), bool(images), row.runs_here)
    if reason:
        print(f'not verified: {reason}')
        return
    detector.model = ExportedDetector(str(args.out), detector.cfg.model.data_preprocessor, trusted=True)
    exported = [detection_arrays(detector.predict_samples([image])[0]) for image in images]
    _report(compare_detections(originals, exported), len(images), precision == INT8)


def _precision(args: argparse.Namespace) -> tuple[str, str]:
    """The precision asked for, and the folder to calibrate on, which is empty unless it is int8."""
    asked = [args.precision, FP16 if args.half else None, INT8 if args.int8 else None]
    precisions = {precision for precision in asked if precision}
    if len(precisions) > 1:
        raise UserError('--precision, --half and --int8 contradict each other; give one of them')
    precision, folder = next(iter(precisions), FP32), args.int8 or args.calibrate or ''
    if args.int8 and args.calibrate:
        raise UserError('--int8 DIR and --calibrate DIR name two folders; give one of them')
    if bool(folder) != (precision == INT8):
        raise UserError('--precision int8 and --calibrate DIR, the images to calibrate on, go together')
    return precision, folder


def _why_not(nms: bool, images: bool, runs: bool) -> str:
    """Why the file cannot be compared with the detector; empty if it can."""
    if not images:
        return 'no images; give --images'
    if not runs:
        return 'this operating system cannot run the format; compare it where it runs'
    return '' if nms else 'without NMS there are no detections'


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
