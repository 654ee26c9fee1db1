"""Time a detector's network against others: python tools/analysis_tools/benchmark.py CONFIG --against split mmdet."""

import argparse
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

from mixdet.benchmark import peers
from mixdet.benchmark.networks import measure_networks, networks_markdown, plot_networks
from mixdet.benchmark.operators import operators_markdown
from mixdet.cli.main import run_tool, user_input
from mixdet.engine.atomic import check_new, write_new_text, writing
from mixdet.engine.config import load_config
from mixdet.errors import UserError
from mixdet.text import print

NCHW = 'NCHW:'


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Time the networks of detectors, without NMS, in turns in one process. Networks that should '
        'compute the same are first checked against float64.'
    )
    parser.add_argument('config', help='config file; its network runs in channels_last, unfused and fused')
    parser.add_argument(
        '--against',
        nargs='+',
        default=['split'],
        metavar='WHAT',
        help="'split': the same network group by group in NCHW, as stock PyTorch computes it; 'mmdet': MMDetection's "
        "own SSDLite-MobileNetV2, NCHW; 'timm': timm's MixNet, eager NCHW, with the same weights (backbones alone); "
        f"'onnxruntime': the exported network; another config, unfused and fused ('{NCHW}CONFIG': unfused, in NCHW). "
        'Ratios are over the first of these that can be trained',
    )
    parser.add_argument('--backbone', action='store_true', help='compare the backbones alone, as with timm')
    parser.add_argument('--shape', type=int, nargs=2, default=(320, 320), metavar=('H', 'W'), help='input size, px')
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 8], help='batch sizes for inference')
    parser.add_argument('--train-batch', type=int, default=8, help='batch size of the training step; 0: none')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--seconds', type=float, default=5.0, help='for each measurement')
    parser.add_argument('--out', metavar='FILE.md', type=Path, help='write the table to this file')
    parser.add_argument('--plot', metavar='FILE.png', type=Path, help='draw the times into this file')
    parser.add_argument(
        '--profile', metavar='FILE.md', type=Path, help='write the operators that take the most time to this file'
    )
    args = parser.parse_args()
    if min(args.threads, *args.batches) < 1 or args.train_batch < 0:
        raise UserError('--threads and --batches must be at least 1, --train-batch at least 0')
    if min(args.shape) < 1:
        raise UserError('--shape must be at least 1 px')
    for path in (args.out, args.plot, args.profile):
        if path and not path.parent.is_dir():
            raise UserError(f'{path}: the folder {path.parent} does not exist')
        if path:
            check_new(path)

    torch.set_num_threads(args.threads)
    size = tuple(args.shape)
    backbone_only = args.backbone or 'timm' in args.against
    with user_input(args.config):
        noise, other_noise = torch.randn(2, 8, 3, *size, generator=torch.Generator().manual_seed(0))
        compared, model = _peers(args.config, args.against, backbone_only, noise)
        errors = peers.float64_errors(model, compared, other_noise)
        for name, error in errors.items():
            print(f'{name}: within {error:.1e} of float64', flush=True)
        timings, memory = measure_networks(compared, size, args.batches, args.train_batch, args.seconds)
    ours, _, *others = compared
    reference = next((peer for peer in others if peer.model is not None), ours)
    page = networks_markdown(timings, memory, errors, reference.name)
    if args.out:
        write_new_text(args.out, page)
    else:
        print(page)
    if args.plot:
        with writing(args.plot):
            plot_networks(timings, args.plot)
    if args.profile:
        write_new_text(args.profile, operators_markdown(compared, size, args.batches, args.train_batch))


def _peers(
    config: str, against: list[str], backbone_only: bool, images: torch.Tensor
) -> tuple[list[peers.Peer], torch.nn.Module]:
    """The networks to time: the config's, the same fused, and those it is compared with; and the model of the first."""
    name = Path(config).stem
    model = peers.calibrate_norms(_model(config, backbone_only), images)
    # before the others are copied from the model, which takes over timm's weights
    timm = [peers.timm_peer(model, load_config(config).model.backbone, images)] if 'timm' in against else []
    compared = [peers.eager_peer(name, model, True, same_network=True), peers.fused_peer(name, model, True)]
    for what in against:
        if what == 'split':
            compared.append(peers.split_peer(name, model))
        elif what == 'onnxruntime':
            compared.append(peers.onnxruntime_peer(name, model))
        elif what == 'timm':
            compared += timm
        else:
            compared += _other_config(what, config, backbone_only, images)
    names = [peer.name for peer in compared]
    for each in names:
        if names.count(each) > 1:
            raise UserError(f'--against: {each} is the config itself, or named twice')
    return compared, model


def _other_config(what: str, config: str, backbone_only: bool, images: torch.Tensor) -> list[peers.Peer]:
    """The network of MMDetection's own SSDLite or of another config: in NCHW, or in channels_last and fused as well."""
    if what == 'mmdet':
        path, nchw, name = peers.mmdet_ssdlite_config(), True, "MMDetection's ssdlite_mobilenetv2, NCHW"
    else:
        path, nchw = what.removeprefix(NCHW), what.startswith(NCHW)
        name = Path(path).stem + ', NCHW' * nchw
        if path == config and not nchw:
            raise UserError(f'--against {what}: is the config itself')
    model = peers.calibrate_norms(_model(path, backbone_only), images)
    fused = [] if nchw else [peers.fused_peer(name, model, same_network=False)]
    return [peers.eager_peer(name, model, not nchw), *fused]


def _model(path: str, backbone_only: bool) -> torch.nn.Module:
    cfg = load_config(path)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with user_input(path):
        model = peers.build_detector(cfg)
        return model.backbone if backbone_only else model


if __name__ == '__main__':
    run_tool(main)
