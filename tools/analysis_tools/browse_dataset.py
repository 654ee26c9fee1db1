"""Draw training images as the training sees them: browse_dataset.py CONFIG --out DIR."""

import argparse
import contextlib
import io
from pathlib import Path

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import DictAction
from mmengine.registry import init_default_scope

from mixdet.cli.main import run_tool, user_input
from mixdet.cli.options import merge_options
from mixdet.datasets.preflight import check_datasets
from mixdet.engine.atomic import make_folder
from mixdet.engine.config import load_config
from mixdet.engine.outputs import OutputFolder
from mixdet.errors import UserError
from mixdet.report.pictures import draw_boxes
from mixdet.report.samples import augmented_samples, class_names
from mixdet.text import print, printable


def main() -> None:
    parser = argparse.ArgumentParser(description='Draw training images as the training sees them, augmented.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--out', '--output-dir', type=Path, required=True, help='new folder for the pictures')
    parser.add_argument('--number', type=int, default=50, help='images to draw, at random; 0: all (default: 50)')
    parser.add_argument('--seed', type=int, default=0, help='chooses the images and their augmentation')
    parser.add_argument('--not-show', action='store_true', help="as in MMDetection's commands; no window is opened")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='as for train.py')
    args = parser.parse_args()
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise UserError(f'--out {args.out} exists already; nothing is overwritten, choose another folder')
    if args.number < 0 or args.seed < 0:
        raise UserError(f'--number {args.number} --seed {args.seed}: must not be negative')

    cfg = load_config(args.config)
    if args.cfg_options:
        merge_options(cfg, args.cfg_options)
    if not cfg.get('train_dataloader'):
        raise UserError(f'{args.config} has no train_dataloader: there are no training images to draw')
    with user_input(args.config):
        check_datasets(cfg, ('train',))
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        with contextlib.redirect_stdout(io.StringIO()):  # CocoDataset prints its progress
            dataset = DATASETS.build(cfg.train_dataloader.dataset)
        names = class_names(dataset)
        make_folder(args.out)
        folder, drawn = OutputFolder(args.out), 0
        for sample in augmented_samples(dataset, args.number or len(dataset), args.seed):
            stem = printable(Path(sample.path).stem)[:100]
            picture = np.asarray(draw_boxes(sample.picture, sample.boxes, names))
            folder.write_image(Path(f'{sample.data_index:06d}_{stem}.jpg'), np.ascontiguousarray(picture[..., ::-1]))
            drawn += 1
    print(f'{drawn} of {len(dataset)} training images: {args.out}')


if __name__ == '__main__':
    run_tool(main)
