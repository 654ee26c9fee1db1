"""Evaluate a checkpoint: python tools/test.py CONFIG CHECKPOINT."""

import argparse
from pathlib import Path

from mixdet.cli.arguments import add_common_arguments, config_from_arguments
from mixdet.cli.main import run_tool, user_input
from mixdet.cli.runner import build_runner
from mixdet.deploy.formats import format_of
from mixdet.engine.atomic import check_new, make_folder, writing
from mixdet.engine.checkpoint import check_fits, read_checkpoint
from mixdet.engine.dump import DumpPredictions
from mixdet.errors import UserError
from mixdet.evaluation.results import write_result
from mixdet.evaluation.tta import mirror_in_test
from mixdet.text import print


def main() -> None:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint.')
    add_common_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint, or a file exported by tools/export.py')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to this pickle file')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='write pictures of the predictions to DIR; a relative one lies in the folder of the run, work_dir/<time>',
    )
    parser.add_argument('--wait-time', type=float, default=2, help='seconds between windows of --show')
    parser.add_argument(
        '--tta', action='store_true', help='merge each image with its mirror image (test-time augmentation)'
    )
    parser.add_argument(
        '--no-fuse', action='store_true', help='do not fuse the network for speed on a CPU; run it as it was trained'
    )
    args = parser.parse_args()
    if args.out:
        _check_out(Path(args.out))

    cfg = config_from_arguments(args)
    checkpoint = cfg.load_from = None
    if format_of(args.checkpoint):
        preprocessor = cfg.model.get('data_preprocessor')
        cfg.model = dict(type='mixdet.ExportedDetector', file=args.checkpoint, data_preprocessor=preprocessor)
    else:
        cfg.load_from = args.checkpoint
        checkpoint = read_checkpoint(args.checkpoint) if '://' not in args.checkpoint else None
    cfg.resume = False
    if args.show or args.show_dir:
        picture_hook = dict(type='mixdet.PictureHook', out_dir=args.show_dir, show=args.show, wait_time=args.wait_time)
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), picture_hook]
    if args.out:
        metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        cfg.test_evaluator = [*metrics, dict(type='mixdet.DumpPredictions', out_file_path=args.out)]

    if not args.no_fuse:
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='mixdet.FuseHook')]
    if args.tta:
        with user_input('--tta'):
            mirror_in_test(cfg)
    runner = build_runner(cfg, args, ('test',))
    if checkpoint is not None:
        check_fits(checkpoint, runner.model, args.checkpoint)
    metrics = runner.test()
    if metrics and runner.rank == 0:
        images = len(runner.test_loop.dataloader.dataset)
        path = write_result(cfg, Path(args.config).stem, checkpoint or {}, args.checkpoint, images, metrics, args.tta)
        print(f'Results: {path}')
        _write_details(runner.test_evaluator.metrics, path.with_suffix(''))
    _check_dumped(runner.test_evaluator.metrics)


def _check_dumped(metrics: list) -> None:
    """Raise what kept ``--out`` from being written."""
    for metric in metrics:
        if isinstance(metric, DumpPredictions) and metric.failure:
            raise metric.failure


def _check_out(path: Path) -> None:
    if path.suffix not in ('.pkl', '.pickle'):
        raise UserError(f'--out {path}: must end in .pkl or .pickle')
    check_new(path, '--out')
    make_folder(path.parent)


def _write_details(metrics: list, folder: Path) -> None:
    for metric in metrics:
        if getattr(metric, 'details', None):
            from mixdet.report.detail_files import write_details  # matplotlib is slow to import

            with writing(folder):
                write_details(metric.details, folder)
            print(f'Details: {folder}')


if __name__ == '__main__':
    run_tool(main)
