"""Time a config's detector against others: python tools/analysis_tools/benchmark.py CONFIG --against split mmdet."""

import argparse
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

from mixdet.benchmark import operators
from mixdet.benchmark import peers as known
from mixdet.benchmark.networks import markdown, measure, plot
from mixdet.cli.main import run_tool, user_input
from mixdet.engine.config import load_config
from mixdet.errors import UserError

NCHW = 'NCHW:'


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Time the networks of detectors, without NMS, interleaved in one process; what should compute the '
        'same is checked against float64 first.'
    )
    parser.add_argument('config', help='config file; runs in channels_last, as it is and fused')
    parser.add_argument(
        '--against',
        nargs='+',
        default=['split'],
        metavar='WHAT',
        help="'split': the same network group by group in NCHW, as stock PyTorch computes it; 'mmdet': MMDetection's "
        "own SSDLite-MobileNetV2, NCHW; 'timm': timm's MixNet, eager NCHW, with the same weights (backbones alone); "
        f"'onnxruntime': the exported network; other configs, as they are and fused ('{NCHW}' in front: in that "
        'layout). Ratios are over the first that trains',
    )
    parser.add_argument('--backbone', action='store_true', help='compare the backbones alone, as timm always does')
    parser.add_argument('--shape', type=int, nargs=2, default=(320, 320), metavar=('H', 'W'), help='input size, px')
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 8], help='batch sizes for inference')
    parser.add_argument('--train-batch', type=int, default=8, help='batch size of a training step, 0 for none')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--seconds', type=float, default=5.0, help='for each of the measurements')
    parser.add_argument('--out', metavar='FILE.md', type=Path, help='write the table to this file')
    parser.add_argument('--plot', metavar='FILE.png', type=Path, help='draw the times into this file')
    parser.add_argument(
        '--profile', metavar='FILE.md', type=Path, help='write the operators that take most of each to this file'
    )
    args = parser.parse_args()
    if min(args.threads, *args.batches) < 1 or args.train_batch < 0:
        raise UserError('--threads and --batches must be at least 1, --train-batch at least 0')
    for path in (args.out, args.plot, args.profile):
        if path and not path.parent.is_dir():
            raise UserError(f'{path}: the folder {path.parent} does not exist')

    torch.set_num_threads(args.threads)
    alone = args.backbone or 'timm' in args.against
    with user_input(args.config):
        compared, model = _alternatives(args.config, args.against, alone, torch.randn(8, 3, *args.shape))
        found = known.differences(model, compared, torch.randn(1, 3, *args.shape))
        for name, error in found.items():
            print(f'{name}: within {error:.1e} of float64', flush=True)
        timings, memory = measure(compared, tuple(args.shape), tuple(args.batches), args.train_batch, args.seconds)
    asked = [other.name for other in compared[2:] if other.model is not None]
    page = markdown(timings, memory, found, (asked or [compared[0].name])[0])
    if args.out:
        args.out.write_text(page)
    else:
        print(page)
    if args.plot:
        plot(timings, args.plot)
    if args.profile:
        args.profile.write_text(operators.markdown(compared, tuple(args.shape), args.batches, args.train_batch))


def _alternatives(
    config: str, against: list[str], alone: bool, images: torch.Tensor
) -> tuple[list[known.Alternative], torch.nn.Module]:
    """What is timed: the config's network, the same fused, and those it is compared with; and the first's model."""
    name = Path(config).stem
    model = known.settle(_model(config, alone), images)
    # first, as its weights are then everybody's
    timm = known.timm_mixnet(model, load_config(config).model.backbone, images) if 'timm' in against else None
    compared = [known.alternative(name, model, True, same=True), known.fused(name, model, same=True)]
    for what in against:
        if what == 'split':
            compared.append(known.split(name, model))
        elif what == 'onnxruntime':
            compared.append(known.onnxruntime(name, model))
        elif what == 'timm':
            compared.append(timm)
        else:
            path = known.mmdet_config() if what == 'mmdet' else what.removeprefix(NCHW)
            nchw = what == 'mmdet' or what.startswith(NCHW)
            label = "MMDetection's ssdlite_mobilenetv2, NCHW" if what == 'mmdet' else Path(path).stem + ', NCHW' * nchw
            if path == config and not nchw:
                raise UserError(f'--against {what}: is the config itself')
            other = known.settle(_model(path, alone), images)
            compared.append(known.alternative(label, other, not nchw))
            if not nchw:
                compared.append(known.fused(label, other, same=False))
    names = [other.name for other in compared]
    for other in names:
        if names.count(other) > 1:
            raise UserError(f'--against: {other} is the config itself, or named twice')
    return compared, model


def _model(path: str, alone: bool) -> torch.nn.Module:
    cfg = load_config(path)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with user_input(path):
        model = known.build(cfg)
        return model.backbone if alone else model


if __name__ == '__main__':
    run_tool(main)
