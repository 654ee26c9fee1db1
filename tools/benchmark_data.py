"""What the images of a training cost: python tools/benchmark_data.py CONFIG --against mmdet."""

import argparse
import json
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils.dl_utils import set_multi_processing

from mixdet.benchmark.data import build_train_loader, transform_times
from mixdet.benchmark.loaders import data_markdown, data_report, loader_rates, step_times
from mixdet.benchmark.peers import mmdet_ssdlite_config
from mixdet.benchmark.timing import Timing
from mixdet.cli.main import run_tool, user_input
from mixdet.cli.options import OptionAction, config_with_options
from mixdet.engine.atomic import check_new, write_new_text
from mixdet.errors import UserError
from mixdet.text import print


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Time the data pipeline and the loader of a training: CPU time per image by transform, images/s by '
        'number of workers, and what that allows a training step. Configs take turns in one process; medians.'
    )
    parser.add_argument('config', help='config of a training, of any MMDetection detector')
    parser.add_argument(
        '--against', metavar='CONFIG', help="another config; 'mmdet': MMDetection's own SSDLite-MobileNetV2"
    )
    options = dict(nargs='+', action=OptionAction, metavar='KEY=VALUE', default={})
    parser.add_argument('--cfg-options', **options, help='change settings of both configs: data_root=data/coco/')
    parser.add_argument('--first-options', **options, help='change settings of CONFIG alone, after --cfg-options')
    parser.add_argument('--images', type=int, default=64, help='how many a round of transforms loads')
    parser.add_argument('--batches', type=int, default=8, help='how many a loader gives in a round')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2], metavar='N', help='of the loader')
    step = parser.add_mutually_exclusive_group()
    step.add_argument('--step-ms', type=float, metavar='MS', help='a training step of a batch takes that long')
    step.add_argument('--step', action='store_true', help="measure a training step of each config's detector")
    parser.add_argument('--threads', type=int, default=1, help="PyTorch's, for --step")
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write all figures to this file')
    args = parser.parse_args()
    if min(args.images, args.batches, args.rounds, args.threads) < 1 or min(args.workers) < 0:
        raise UserError('--images, --batches, --rounds and --threads must be at least 1, --workers at least 0')
    if args.step_ms is not None and not args.step_ms > 0:
        raise UserError(f'--step-ms {args.step_ms:g}: must be above 0')
    if args.out:
        check_new(args.out, '--out')
        if not args.out.parent.is_dir():
            raise UserError(f'{args.out}: the folder {args.out.parent} does not exist')

    torch.set_num_threads(args.threads)
    cfgs = _configs(args)
    first = cfgs[next(iter(cfgs))]
    init_default_scope(first.get('default_scope', 'mmdet'))
    set_multi_processing(**first.get('env_cfg', {}).get('mp_cfg', {}))
    datasets, steps = {}, {}
    for name, cfg in cfgs.items():
        with user_input(name):
            datasets[name] = build_train_loader(cfg).dataset
    with user_input(args.config):
        transforms = transform_times(datasets, args.images, args.rounds)
        loaders = loader_rates(cfgs, datasets, sorted(set(args.workers)), args.batches, args.rounds)
        if args.step:
            steps = step_times(cfgs, datasets)
    if args.step_ms:
        sizes = {name: cfg.train_dataloader.get('batch_size', 1) for name, cfg in cfgs.items()}
        steps = {name: Timing(*[args.step_ms / size] * 3, cpu=0.0) for name, size in sizes.items()}
    report = data_report(transforms, loaders, steps)
    print(data_markdown(report))
    if args.out:
        write_new_text(args.out, json.dumps(report, indent=1) + '\n')


def _configs(args: argparse.Namespace) -> dict[str, Config]:
    """The configs by the names that the tables give them."""
    cfg, notes = config_with_options(args.config, {**args.cfg_options, **args.first_options})
    changed = ', '.join(f'{key}={value}' for key, value in args.first_options.items())
    cfgs = {f'{Path(args.config).stem}{changed and f" with {changed}"}': cfg}
    if args.against:
        path = mmdet_ssdlite_config() if args.against == 'mmdet' else args.against
        name = "MMDetection's ssdlite_mobilenetv2" if args.against == 'mmdet' else Path(path).stem
        if name in cfgs:
            raise UserError(f'--against {args.against}: is the config itself; change one of them by --first-options')
        cfgs[name], others = config_with_options(path, args.cfg_options)
        notes += others
    for note in notes:
        print(note)
    return cfgs


if __name__ == '__main__':
    run_tool(main)
