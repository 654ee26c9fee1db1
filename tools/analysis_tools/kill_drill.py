"""Kill a training over and over, resume it, and compare it with an uninterrupted one.

A short training of a small SSDLite on the built-in demo set is ended with SIGKILL at random moments, half of the times
while a checkpoint is being written. Every time the newest checkpoint must be whole and at most one save interval old,
and the training that reaches its end must equal the uninterrupted one bit for bit: weights, optimizer, generators and
log. Exits with status 1 otherwise.
"""

import argparse
import gc
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mixdet.cli.main import run_tool
from mixdet.datasets import make_demo_data
from mixdet.engine import Runner
from mixdet.engine.checkpoint import find_checkpoint, read_checkpoint
from mixdet.engine.config import load_config

CONFIG = Path(__file__).resolve().parents[2] / 'configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py'
INTERVAL = 3  # iterations between checkpoints; an epoch has 4
OPTIONS = {
    'model.backbone': dict(
        _delete_=True,
        type='mixdet.MobileNetV2',
        widen_factor=0.25,
        kernel_sizes=(3, 5),
        out_indices=('expansion', 'head'),
    ),
    'train_dataloader': dict(batch_size=4, num_workers=1),
    'val_dataloader': dict(batch_size=4, num_workers=0, persistent_workers=False),
    'train_cfg': dict(max_epochs=12, val_interval=4),
    'default_hooks': dict(
        logger=dict(interval=2),
        checkpoint=dict(interval=INTERVAL, by_epoch=False, max_keep_ckpts=2),
    ),
    'custom_hooks': [dict(type='EMAHook')],
    'train_dataloader.dataset.pipeline.3.scale': (96, 96),
    'val_dataloader.dataset.pipeline.1.scale': (96, 96),
}
TIMES = ('time', 'data_time')


class Progress(Hook):
    """Tells the parent how many iterations are done."""

    priority = 'VERY_HIGH'

    def __init__(self, done) -> None:
        self.done = done

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.done.value = runner.iter


class QuickRunner(Runner):
    """Does not ask compilers and drivers for their versions: a start takes a second instead of several."""

    def _log_env(self, env_cfg: dict) -> None:
        pass


def train(cfg: Config, work_dir: Path, done) -> None:
    """What the process that is killed does."""
    log = os.open(work_dir.with_suffix('.log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    runner = QuickRunner.from_cfg(cfg)
    runner.register_hook(Progress(done))
    runner.train()


def start(cfg: Config, work_dir: Path, done) -> multiprocessing.Process:
    """Begin or resume the training in ``work_dir``."""
    done.value = -1
    cfg.work_dir, cfg.resume = str(work_dir), True
    cfg.pretty_text  # noqa: B018  (formatted here once, not in every process)
    gc.freeze()  # else every process collects the garbage of its imports
    process = multiprocessing.get_context('fork').Process(target=train, args=(cfg, work_dir, done))
    process.start()
    return process


def kill(process: multiprocessing.Process, work_dir: Path, done, longest: float, in_save: bool) -> bool:
    """Kill ``process`` at a random moment, or in a save; False if it ended before."""
    if in_save:
        leftovers = set(work_dir.glob('.*.pth.partial'))
        while process.is_alive() and set(work_dir.glob('.*.pth.partial')) <= leftovers:
            time.sleep(0.0005)
        time.sleep(random.uniform(0, 0.02))
    else:
        process.join(random.uniform(0, longest))
    if not process.is_alive():
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return True


def latest(work_dir: Path) -> tuple[int, int]:
    """Iteration of the newest whole checkpoint (0 without one), and the number of damaged ones."""
    found, damaged = find_checkpoint(work_dir / 'last_checkpoint', [work_dir / 'iter_*.pth'])
    return (read_checkpoint(found)['meta']['iter'] if found else 0), len(damaged)


def content(work_dir: Path) -> dict:
    """All of the last checkpoint that two equal runs agree on."""
    last = read_checkpoint(Path((work_dir / 'last_checkpoint').read_text()))
    history = last['message_hub']['log_scalars'].items()
    last['history'] = {
        key: [part.tolist() for part in buffer.data] for key, buffer in history if key.split('/')[-1] not in TIMES
    }
    return {key: last[key] for key in ('state_dict', 'ema_state_dict', 'optimizer', 'history', 'mixdet_state')}


def same(first, second) -> bool:
    """Equality to the last bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--kills', type=int, default=200, help='how many times to kill (default: 200)')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--work-dir', help='an empty folder to keep (default: a temporary one)')
    args = parser.parse_args()

    torch.set_num_threads(1)
    random.seed(args.seed)
    folder = Path(args.work_dir or tempfile.mkdtemp(prefix='kill_drill-')).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    cfg = load_config(str(CONFIG))
    cfg.merge_from_dict(OPTIONS)
    data = make_demo_data(folder / 'data', {'train': 16, 'val': 4})
    for name in ('train', 'val'):
        cfg[f'{name}_dataloader'].dataset.data_root = f'{data}/'
    cfg.val_evaluator.ann_file = str(data / 'annotations/val.json')

    done = multiprocessing.get_context('fork').Value('i', -1)
    began = time.perf_counter()
    process = start(cfg, folder / 'reference', done)
    while process.is_alive() and done.value < 0:
        time.sleep(0.01)
    startup = time.perf_counter() - began
    process.join()
    if process.exitcode:
        sys.exit(f'the training failed: see {folder}/reference.log')
    whole_run = time.perf_counter() - began
    print(f'uninterrupted: {whole_run:.1f} s, {startup:.1f} s of it to start', flush=True)
    reference = content(folder / 'reference')

    kills = in_saves = torn = rounds = most_lost = wrong = 0
    while kills < args.kills or not rounds:
        work_dir = folder / f'round{rounds}'
        while True:
            process = start(cfg, work_dir, done)
            killed = kills < args.kills and kill(
                process, work_dir, done, longest=startup + (whole_run - startup) / 4, in_save=random.random() < 0.5
            )
            if not killed:
                break
            kills += 1
            unfinished = len(list(work_dir.glob('.*.pth.partial')))
            in_saves += bool(unfinished)
            saved, damaged = latest(work_dir)
            torn += damaged
            if done.value >= 0:
                most_lost = max(most_lost, done.value - saved)
            print(
                f'kill {kills}: in iteration {done.value}, {"in a save, " if unfinished else ""}goes on from {saved}',
                flush=True,
            )
        process.join()
        equal = process.exitcode == 0 and same(content(work_dir), reference)
        wrong += not equal
        rounds += 1
        print(
            f'training {rounds} came to its end after {kills} kills in all: {"equal" if equal else "DIFFERENT"}',
            flush=True,
        )
        if equal and not args.work_dir:
            shutil.rmtree(work_dir)
    print(
        f'{kills} kills in {rounds} trainings, {in_saves} of them in a save; damaged checkpoints: {torn}; '
        f'most iterations lost: {most_lost} of an interval of {INTERVAL}; trainings that differ: {wrong}'
    )
    if torn or wrong or most_lost > INTERVAL:
        sys.exit(1)
    if not args.work_dir:
        shutil.rmtree(folder)


if __name__ == '__main__':
    run_tool(main)
