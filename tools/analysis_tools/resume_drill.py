"""Copy and damage work dirs, turn their clocks, and check that each is resumed from its newest checkpoint.

Short trainings on the built-in demo set leave work dirs of several kinds: saved by iterations, by epochs, interrupted,
and with a longer training before. Each case is a copy of one (cp -r, cp -a, zip, or file by file in random order) while
the original stays where it was; the times of its saves may be shifted, ``last_checkpoint`` may be gone or out of date,
and its newest checkpoint may be damaged or hold NaN. The training must go on in the copy, from the newest checkpoint
that is whole and finite. Exits with status 1 otherwise.
"""

import argparse
import contextlib
import copy
import io
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, Optional

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner as MMEngineRunner
from torch import nn

from mixdet.cli.main import run_tool
from mixdet.datasets import make_demo_data
from mixdet.engine import CheckpointHook, Runner
from mixdet.engine.checkpoint import read_checkpoint
from mixdet.engine.config import load_config
from mixdet.registry import MODELS
from mixdet.text import print

CONFIG = Path(__file__).resolve().parents[2] / 'configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py'
OPTIONS: dict[str, Any] = {
    'model': dict(_delete_=True, type='mixdet.ResumeDrillModel'),
    'train_dataloader': dict(batch_size=2, num_workers=0, persistent_workers=False),
    'train_dataloader.dataset.pipeline.2.scale': (96, 96),
    'custom_hooks': [dict(type='EMAHook')],
    'train_cfg': dict(max_epochs=9),
    'val_dataloader': None,
    'val_cfg': None,
    'val_evaluator': None,
}
BATCHES = 3  # in an epoch
BY_ITERATION = dict(interval=2, by_epoch=False, max_keep_ckpts=3, save_best=None)
BY_EPOCH = dict(interval=1, by_epoch=True, max_keep_ckpts=-1, save_best=None)
KINDS = ('iterations', 'epochs', 'interrupted', 'begun again')
COPIES = ('cp -r', 'cp -a', 'zip', 'file by file')
NOTES = ('there', 'gone', 'out of date', 'junk')
DAMAGES = ('none', 'truncated', 'one bit', 'NaN', 'infinite average')
CLOCKS = ('kept', 'turned')
draw = random.Random()  # trainings seed the global one
numbers = itertools.count()


@MODELS.register_module()
class ResumeDrillModel(BaseModel):
    """Learns nothing of use, from images of 96x96; which checkpoint is taken does not depend on the network."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1))

    def forward(self, inputs: list, data_samples: list, mode: str) -> dict:
        """The loss of a batch of images (3, 96, 96)."""
        return dict(loss=self.body(torch.stack(inputs).float() / 255).square().mean())


class Ended(BaseException):
    """Takes the place of a kill."""


class End(Hook):
    """Ends a training before iteration ``at``; if ``interrupted``, after a save as on Ctrl-C."""

    priority = 'LOWEST'

    def __init__(self, at: int, interrupted: bool = False) -> None:
        self.at, self.interrupted = at, interrupted

    def before_train_iter(self, runner: MMEngineRunner, batch_idx: int, data_batch: Any = None) -> None:
        """End here."""
        if runner.iter == self.at:
            if self.interrupted:
                next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook)).save_now(runner, runner.iter)
            raise Ended


class QuickRunner(Runner):
    """Starts without asking compilers and drivers for their versions."""

    def _log_env(self, env_cfg: dict) -> None:
        pass


def train(
    folder: Path, work_dir: Path, checkpoint: dict, at: int, resume: bool = False, interrupted: bool = False
) -> Any:
    """Begin or resume a training in ``work_dir`` and end it before iteration ``at``; the file it resumed, if any."""
    cfg = make_config(folder, checkpoint)
    cfg.work_dir, cfg.resume, cfg.experiment_name = str(work_dir), resume, f'drill{next(numbers)}'
    cfg.visualizer = dict(type='Visualizer', name=cfg.experiment_name)
    runner = QuickRunner.from_cfg(cfg)
    runner.register_hook(End(at, interrupted))
    with contextlib.suppress(Ended):
        runner.train()
    return runner._load_from


def make_config(folder: Path, checkpoint: dict) -> Config:
    """The config of the trainings, on data in ``folder``."""
    cfg = load_config(str(CONFIG))
    cfg.merge_from_dict(copy.deepcopy(OPTIONS))  # which takes out _delete_
    cfg.default_hooks = dict(
        checkpoint=dict(type='mixdet.CheckpointHook', **checkpoint), nonfinite=dict(type='mixdet.NonFiniteHook')
    )
    cfg.train_dataloader.dataset.data_root = f'{folder / "data"}/'
    cfg.log_level = 'ERROR'
    return cfg


def make_originals(folder: Path) -> dict[str, tuple[Path, dict, int]]:
    """Work dirs by kind: the folder, its settings, and the iteration of the newest checkpoint."""
    make_demo_data(folder / 'data', {'train': 2 * BATCHES, 'val': 2})
    originals = {kind: folder / kind.replace(' ', '_') / 'run' for kind in KINDS}
    train(folder, originals['iterations'], BY_ITERATION, at=11)
    train(folder, originals['epochs'], BY_EPOCH, at=11)
    train(folder, originals['interrupted'], BY_EPOCH, at=11, interrupted=True)
    train(folder, originals['begun again'], BY_EPOCH, at=16)
    train(folder, originals['begun again'], BY_EPOCH, at=8)
    return {
        'iterations': (originals['iterations'], BY_ITERATION, 10),
        'epochs': (originals['epochs'], BY_EPOCH, 9),
        'interrupted': (originals['interrupted'], BY_EPOCH, 11),
        'begun again': (originals['begun again'], BY_EPOCH, 6),
    }


def copy_folder(original: Path, target: Path, way: str) -> None:
    """Copy a work dir."""
    if way.startswith('cp'):
        target.parent.mkdir(parents=True)
        subprocess.run([*way.split(), str(original), str(target)], check=True)
        return
    target.mkdir(parents=True)
    files = [path for path in original.rglob('*') if path.is_file()]
    draw.shuffle(files)
    if way == 'zip':
        with zipfile.ZipFile(target.with_suffix('.zip'), 'w') as archive:
            for path in files:
                archive.write(path, path.relative_to(original))
        with zipfile.ZipFile(target.with_suffix('.zip')) as archive:
            archive.extractall(target)
        return
    for second, path in enumerate(files):
        place = target / path.relative_to(original)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        os.utime(place, (second, second))
    (target / f'.{files[0].name}.Xq3r5T').write_bytes(b'part of a file')  # as rsync names what it is copying


def turn_clock(work_dir: Path) -> None:
    """Give files times as if the clock had been set forward or back before each save."""
    for path in sorted(work_dir.iterdir(), key=lambda path: path.stat().st_mtime):
        time = path.stat().st_mtime + draw.choice((-1, 1)) * draw.choice((1, 3600, 86400, 10**8))
        os.utime(path, (time, time))


def change_note(work_dir: Path, way: str) -> None:
    """Leave ``last_checkpoint`` as ``way`` says."""
    note = work_dir / 'last_checkpoint'
    if way == 'gone':
        note.unlink()
    elif way == 'out of date':
        note.write_text(str(draw.choice(sorted(work_dir.glob('*.pth')))), encoding='utf-8')
    elif way == 'junk':
        note.write_bytes(draw.randbytes(64))


def damage(path: Path, way: str) -> None:
    """Damage a checkpoint."""
    content = bytearray(path.read_bytes())
    if way == 'truncated':
        path.write_bytes(content[: draw.randrange(len(content))])
    elif way == 'one bit':
        with zipfile.ZipFile(path) as archive:
            place = content.index(archive.read(max(archive.infolist(), key=lambda record: record.file_size)))
        content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
    else:
        checkpoint = read_checkpoint(path)
        weights = checkpoint['state_dict' if way == 'NaN' else 'ema_state_dict']
        chosen = draw.choice([value for value in weights.values() if value.is_floating_point()])
        chosen.view(-1)[draw.randrange(chosen.numel())] = float('nan' if way == 'NaN' else 'inf')
        torch.save(checkpoint, path)


def find(work_dir: Path, newest: int, below: Optional[int] = None) -> Path:
    """The checkpoint of the original training with ``newest`` iterations; with ``below`` the newest of fewer."""
    iterations = {path: read_checkpoint(path)['meta']['iter'] for path in work_dir.glob('*.pth')}
    if below is None:
        return next(path for path, iteration in iterations.items() if iteration == newest)
    return max((path for path, iteration in iterations.items() if iteration < below), key=iterations.__getitem__)


def try_case(folder: Path, originals: dict, number: int) -> tuple[dict[str, str], str]:
    """One copy: what was done to it, and what was wrong with the resumed training ('' if nothing)."""
    case = dict(kind=draw.choice(KINDS), copy=draw.choice(COPIES), clock=draw.choice(CLOCKS))
    case.update(note=draw.choice(NOTES), damage=draw.choice(DAMAGES))
    original, settings, newest = originals[case['kind']]
    work_dir = folder / 'copies' / str(number) / 'run'
    copy_folder(original, work_dir, case['copy'])
    expected = find(work_dir, newest)
    if case['damage'] != 'none':
        bad, expected = expected, find(work_dir, newest, below=newest)
        damage(bad, case['damage'])
    change_note(work_dir, case['note'])
    if case['clock'] == 'turned':
        turn_clock(work_dir)
    before = {path: path.read_bytes() for path in original.rglob('*') if path.is_file()}
    iteration = read_checkpoint(expected)['meta']['iter']
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            resumed = train(folder, work_dir, settings, at=iteration, resume=True)
        except Exception as error:  # counted, and told with its case
            resumed = f'{type(error).__name__}: {error}'
    wrong = '' if resumed == str(expected) else f'{resumed} in place of {expected}'
    if before != {path: path.read_bytes() for path in original.rglob('*') if path.is_file()}:
        wrong += ' and the original was changed'
    if not wrong:
        shutil.rmtree(work_dir.parent)
    return case, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--copies', type=int, default=200, help='how many copies to resume (default: 200)')
    parser.add_argument('--seed', type=int, default=0, help='of what is done to each')
    parser.add_argument('--work-dir', help='an empty folder to keep (default: a temporary one)')
    args = parser.parse_args()

    torch.set_num_threads(1)
    draw.seed(args.seed)
    folder = Path(args.work_dir or tempfile.mkdtemp(prefix='resume_drill-')).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        originals = make_originals(folder)
    done: Counter = Counter()
    rightly = 0
    for number in range(args.copies):
        case, wrong = try_case(folder, originals, number)
        done.update(case.items())
        rightly += not wrong
        if wrong:
            print(f'copy {number}: {case}: {wrong}', flush=True)
    for part in ('kind', 'copy', 'clock', 'note', 'damage'):
        print(f'{part}: ' + ', '.join(f'{name} {count}' for (key, name), count in sorted(done.items()) if key == part))
    print(f'{rightly} of {args.copies} copies resumed from the newest checkpoint that is whole and finite')
    if rightly < args.copies:
        sys.exit(1)
    if not args.work_dir:
        shutil.rmtree(folder)


if __name__ == '__main__':
    run_tool(main)
