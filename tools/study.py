"""Train and test rows x data sets x seeds under one protocol: python tools/study.py STUDY --data-root data --jobs 2."""

import argparse
import os
import socket
import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mixdet.cli.main import run_tool
from mixdet.cli.runner import build_runner
from mixdet.errors import UserError
from mixdet.reproduction.sharing import RESULTS, Progress, share
from mixdet.reproduction.study import load_study
from mixdet.reproduction.worker import Worker, run_processes
from mixdet.text import print

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    args = _parse_arguments()
    init_default_scope('mmdet')
    study = load_study(args.study)
    runs = study.runs(args.rows, args.data, args.seeds)
    progress = Progress(study, args.work_dir, args.worker or f'{socket.gethostname()}-{os.getpid()}')
    if args.worker:
        command = f'python tools/study.py {_shown(args.study)} --data-root data'
        worker = Worker(progress, args.data_root, _build_runner, command, args.jobs, args.checkpoint_interval)
        share(progress, runs, worker.do)
        return

    left = sum(not progress.is_done(run) for run in runs)
    print(f'{len(runs)} runs, {len(runs) - left} of them done', flush=True)
    if left:
        status = run_processes([sys.executable, *sys.argv, '--worker', progress.invocation], args.jobs)
        if status:
            print('Stopped; the same command goes on')
            raise SystemExit(status)
    failed = [run.name for run in runs if not progress.is_done(run) and progress.has_failed(run)]
    left = sum(not progress.is_done(run) for run in runs) - len(failed)
    print(f'{len(runs) - left - len(failed)} done, {left} left; results: {args.work_dir / RESULTS}')
    if failed:
        raise UserError(f'{len(failed)} runs failed: {", ".join(failed)}; the same command tries them again')


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Train and test rows x data sets x seeds under one protocol. What is done is not done again; '
        'several of these commands, on any number of machines, may share a work dir.'
    )
    parser.add_argument('study', type=Path, help='config such as configs/_base_/studies/table1.py')
    parser.add_argument('--data-root', type=Path, required=True, help='folder with a folder for each data set')
    parser.add_argument('--work-dir', type=Path, help='where all files go (default: work_dirs/<study>)')
    parser.add_argument('--jobs', type=int, default=1, help='runs side by side')
    parser.add_argument('--rows', nargs='+', default=[], metavar='ROW', help='only these, as mobilenetv2-mixconv35')
    parser.add_argument('--data', nargs='+', default=[], metavar='SET', help='only these data sets')
    parser.add_argument('--seeds', nargs='+', type=int, default=[], help='only these')
    parser.add_argument('--checkpoint-interval', type=int, default=1, help='epochs between two checkpoints of a run')
    parser.add_argument('--worker', help=argparse.SUPPRESS)  # the invocation that this process belongs to
    args = parser.parse_args()
    if min(args.jobs, args.checkpoint_interval) < 1:
        raise UserError('--jobs and --checkpoint-interval must be at least 1')
    args.work_dir = args.work_dir or Path('work_dirs', args.study.stem)
    return args


def _build_runner(cfg: Config, path: str) -> Runner:
    return build_runner(cfg, argparse.Namespace(config=path, launcher='none', local_rank=0), ('train', 'test'))


def _shown(path: Path) -> str:
    """``path`` as seen from the repository, if it is in it."""
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


if __name__ == '__main__':
    run_tool(main)
