"""Kill a training over and over, resume it, and compare it with an uninterrupted one.

A short training of a small SSDLite on the built-in demo set is ended with SIGKILL at random moments, about half of them
while a checkpoint is being written. After each kill the newest checkpoint must be whole and at most one save interval
old, and a training that reaches its end must equal the uninterrupted one bit for bit: weights, optimizer, generators
and log. Exits with status 1 otherwise.
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
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner as MMEngineRunner

from mixdet.cli.main import run_tool
from mixdet.datasets import make_demo_data
from mixdet.engine import Runner
from mixdet.engine.checkpoint import read_checkpoint
from mixdet.engine.config import load_config
from mixdet.engine.newest import checkpoint_patterns, find_newest, survey
from mixdet.engine.resume import STATE
from mixdet.text import print

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
    'default_hooks': dict(
        logger=dict(interval=2),
        checkpoint=dict(interval=INTERVAL, by_epoch=False, max_keep_ckpts=2),
    ),
    'custom_hooks': [dict(type='EMAHook')],
    'train_dataloader.dataset.pipeline.2.scale': (96, 96),
    'val_dataloader.dataset.pipeline.1.scale': (96, 96),
}
TIMES = ('time', 'data_time')  # entries of the log that no two runs agree on
BEING_WRITTEN = '.*.pth.*.partial'
FORK = multiprocessing.get_context('fork')


class Progress(Hook):
    """Tells the parent process how many iterations are done; -1 before the first."""

    priority = 'VERY_HIGH'

    def __init__(self, done: Synchronized) -> None:
        self.done = done

    def before_train_iter(self, runner: MMEngineRunner, batch_idx: int, data_batch: Any = None) -> None:
        """Note the iteration that begins."""
        self.done.value = runner.iter


class QuickRunner(Runner):
    """Does not ask compilers and drivers for their versions: it starts in a second instead of several."""

    def _log_env(self, env_cfg: dict) -> None:
        pass


@dataclass
class Tally:
    """What happened so far."""

    kills: int = 0
    trainings: int = 0
    in_saves: int = 0
    damaged: int = 0
    most_lost: int = 0  # iterations
    different: int = 0

    @property
    def passed(self) -> bool:
        """Whether nothing was damaged, no training differs, and no more than one interval was lost."""
        return not self.damaged and not self.different and self.most_lost <= INTERVAL

    def __str__(self) -> str:
        return (
            f'{self.kills} kills in {self.trainings} trainings, {self.in_saves} of them in a save; damaged '
            f'checkpoints: {self.damaged}; most iterations lost: {self.most_lost} of an interval of {INTERVAL}; '
            f'trainings that differ: {self.different}'
        )


def make_config(folder: Path, epochs: int) -> Config:
    """The config of the training, on data made in ``folder``."""
    cfg = load_config(str(CONFIG))
    cfg.merge_from_dict({**OPTIONS, 'train_cfg': dict(max_epochs=epochs, val_interval=4)})
    data = make_demo_data(folder / 'data', {'train': 16, 'val': 4})
    for name in ('train', 'val'):
        cfg[f'{name}_dataloader'].dataset.data_root = f'{data}/'
    cfg.val_evaluator.ann_file = str(data / 'annotations/val.json')
    return cfg


def train(cfg: Config, work_dir: Path, done: Synchronized) -> None:
    """Train in the process that will be killed."""
    log = os.open(work_dir.with_suffix('.log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    runner = QuickRunner.from_cfg(cfg)
    runner.register_hook(Progress(done))
    runner.train()


def start(cfg: Config, work_dir: Path, done: Synchronized) -> BaseProcess:
    """Begin or resume the training in ``work_dir``."""
    done.value = -1
    cfg.work_dir, cfg.resume = str(work_dir), True
    cfg.pretty_text  # noqa: B018  (formatted here once, not in every process)
    gc.freeze()  # else every process collects the garbage of its imports
    process = FORK.Process(target=train, args=(cfg, work_dir, done))
    process.start()
    return process


def run_uninterrupted(cfg: Config, work_dir: Path, done: Synchronized) -> tuple[float, float]:
    """Train from start to end; the seconds that this took, and those before the first iteration."""
    began = time.perf_counter()
    process = start(cfg, work_dir, done)
    while process.is_alive() and done.value < 0:
        time.sleep(0.01)
    startup = time.perf_counter() - began
    process.join()
    if process.exitcode:
        sys.exit(f'the training failed: see {work_dir}.log')
    return time.perf_counter() - began, startup


def kill(process: BaseProcess, work_dir: Path, longest: float, in_save: bool) -> bool:
    """Kill ``process`` at a random moment within ``longest`` seconds, or in a save; False if it ended before."""
    if in_save:
        leftovers = set(work_dir.glob(BEING_WRITTEN))
        while process.is_alive() and set(work_dir.glob(BEING_WRITTEN)) <= leftovers:
            time.sleep(0.0005)
        time.sleep(random.uniform(0, 0.02))
    else:
        process.join(random.uniform(0, longest))
    if not process.is_alive():
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return True


def inspect(work_dir: Path, done: int, tally: Tally) -> None:
    """Count what a kill after ``done`` iterations has left in ``work_dir``."""
    found, damaged = find_newest(survey(work_dir, checkpoint_patterns(work_dir, 'iter_{}.pth')))
    saved = read_checkpoint(found)['meta']['iter'] if found else 0
    unfinished = any(work_dir.glob(BEING_WRITTEN))
    tally.kills += 1
    tally.in_saves += unfinished
    tally.damaged += len(damaged)
    if done >= 0:
        tally.most_lost = max(tally.most_lost, done - saved)
    where = 'in a save, ' if unfinished else ''
    print(f'kill {tally.kills}: in iteration {done}, {where}resumes from {saved}', flush=True)


def content(work_dir: Path) -> dict:
    """The parts of the last checkpoint that two equal runs agree on."""
    last = read_checkpoint(Path((work_dir / 'last_checkpoint').read_text(encoding='utf-8')))
    history = last['message_hub']['log_scalars'].items()
    last['history'] = {
        key: [part.tolist() for part in buffer.data] for key, buffer in history if key.split('/')[-1] not in TIMES
    }
    return {key: last[key] for key in ('state_dict', 'ema_state_dict', 'optimizer', 'history', STATE)}


def same(first: Any, second: Any) -> bool:
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
    parser.add_argument('--epochs', type=int, default=12, help='length of a training (default: 12)')
    parser.add_argument('--seed', type=int, default=0, help='of the random moments')
    parser.add_argument('--work-dir', help='an empty folder to keep (default: a temporary one)')
    args = parser.parse_args()

    torch.set_num_threads(1)
    random.seed(args.seed)
    folder = Path(args.work_dir or tempfile.mkdtemp(prefix='kill_drill-')).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    cfg = make_config(folder, args.epochs)
    done = FORK.Value('i', -1)
    whole, startup = run_uninterrupted(cfg, folder / 'reference', done)
    print(f'uninterrupted: {whole:.1f} s, {startup:.1f} s of it to start', flush=True)
    reference = content(folder / 'reference')

    longest = startup + (whole - startup) / 4
    tally = Tally()
    while tally.kills < args.kills or not tally.trainings:
        work_dir = folder / f'training{tally.trainings}'
        process = start(cfg, work_dir, done)
        while tally.kills < args.kills and kill(process, work_dir, longest, in_save=random.random() < 0.5):
            inspect(work_dir, done.value, tally)
            process = start(cfg, work_dir, done)
        process.join()
        equal = process.exitcode == 0 and same(content(work_dir), reference)
        tally.different += not equal
        tally.trainings += 1
        print(
            f'training {tally.trainings} reached its end, {tally.kills} kills so far: '
            f'{"equal" if equal else "DIFFERENT"}',
            flush=True,
        )
        if equal and not args.work_dir:
            shutil.rmtree(work_dir)
    print(tally)
    if not tally.passed:
        sys.exit(1)
    if not args.work_dir:
        shutil.rmtree(folder)


if __name__ == '__main__':
    run_tool(main)
