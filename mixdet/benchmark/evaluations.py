"""How long a whole evaluation takes, from the start of ``tools/test.py`` to its end."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.utils import get_installed_path

from mixdet.benchmark.peers import build, mmdet_config, settle
from mixdet.benchmark.timing import environment
from mixdet.errors import UserError

# MMDetection's own tool; mixdet is imported for mmcv's operators, which mmcv-lite lacks
MMDET_TOOL = (
    'import os, runpy, sys, mixdet; from mmengine.utils import get_installed_path; '
    "runpy.run_path(os.path.join(get_installed_path('mmdet'), '.mim', 'tools', 'test.py'), run_name='__main__')"
)


class Run(NamedTuple):
    """A process: seconds on the clock, and of the processor."""

    wall: float
    cpu: float


class Evaluation(NamedTuple):
    """``command`` tests ``images`` images; ``short``, the same, only the first ``few`` of them."""

    name: str
    command: list[str]
    short: list[str]


def prepare(
    name: str, cfg: Config, tool: Sequence[str], folder: Path, ann_file: Path, images: Path, test_cfg: dict, few: int
) -> Evaluation:
    """Write configs and a checkpoint of random weights into ``folder`` and return how to test them.

    Args:
        name: of the evaluation; its files carry it.
        cfg: the config, changed in place: it reads these images in batches of ``few``, in the process itself.
        tool: the command that takes config and checkpoint.
        folder: for the files.
        ann_file, images: annotations in COCO's format and the folder of their images.
        test_cfg: what NMS keeps, the same for all that are compared.
        few: see ``Evaluation``.
    """
    size = next((t['scale'] for t in cfg.test_dataloader.dataset.pipeline if 'scale' in t), (320, 320))
    cfg.model.test_cfg = test_cfg
    if str(cfg.model.bbox_head.type).endswith('SSDHead'):
        cfg.model.bbox_head.type = 'mixdet.SSDHead'
    model = settle(build(cfg), torch.randn(8, 3, *size[::-1], generator=torch.Generator().manual_seed(0)))
    checkpoint = folder / f'{name}.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), checkpoint)
    loader = cfg.test_dataloader
    loader.update(batch_size=few, num_workers=0, persistent_workers=False)
    loader.dataset.update(data_root='', ann_file=str(ann_file), data_prefix=dict(img=str(images)))
    cfg.test_evaluator.ann_file = str(ann_file)
    commands = []
    for indices in (None, few):
        loader.dataset.indices = indices
        path = folder / f'{name}{"" if indices is None else "-few"}.py'
        cfg.dump(path)
        commands.append([*tool, str(path), str(checkpoint), '--work-dir', str(folder / 'work_dirs' / path.stem)])
    return Evaluation(name, *commands)


def run(command: list[str], folder: Path, threads: int) -> Run:
    """Start ``command`` in ``folder`` and wait for it. Raises UserError with its last line if it fails."""
    start = time.perf_counter()
    with tempfile.TemporaryFile('w+', errors='replace') as log:
        environ = {**os.environ, 'OMP_NUM_THREADS': str(threads), 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            lines = log.read().strip().splitlines() or ['no output']
            raise UserError(f'{" ".join(command[-4:])} failed: {lines[-1]}')
    return Run(wall, usage.ru_utime + usage.ru_stime)


def measure(
    evaluations: Sequence[Evaluation], folder: Path, rounds: int, threads: int, progress=lambda line: None
) -> dict[str, tuple[list[Run], list[Run]]]:
    """Run all ``evaluations``, whole and short, in turn, ``rounds`` times: name -> runs of each."""
    runs: dict[str, tuple[list[Run], list[Run]]] = {each.name: ([], []) for each in evaluations}
    for number in range(rounds):
        for each in evaluations:
            for command, kept in zip((each.command, each.short), runs[each.name]):
                kept.append(run(command, folder, threads))
            whole = runs[each.name][0][-1]
            progress(f'round {number + 1}: {each.name}: {whole.wall:.1f} s, {whole.cpu:.1f} s of the processor')
    return runs


def markdown(runs: dict[str, tuple[list[Run], list[Run]]], images: int, few: int) -> str:
    """The medians as a page; the last evaluation is the 1 of the ratios. Start-up is what ``few`` images leave over."""
    rows = {}
    for name, (whole, short) in runs.items():
        for clock in ('wall', 'cpu'):
            total, start = (statistics.median(getattr(once, clock) for once in part) for part in (whole, short))
            each = (total - start) / max(images - few, 1)
            rows[name, clock] = (1e3 * total / images, start - few * each, 1e3 * each)
    last = list(runs)[-1]
    lines = [
        f'{images} images, {len(next(iter(runs.values()))[0])} rounds, on {environment()}. ms an image.',
        '',
        f'| | | whole test | over {last} | start-up and summary, s | each further image | over {last} |',
        '|---|---|---|---|---|---|---|',
    ]
    for (name, clock), (total, start, each) in rows.items():
        base = rows[last, clock]
        ratio = f'{each / base[2]:.2f}' if base[2] > 0 else '-'
        lines.append(
            f'| {name} | {"clock" if clock == "wall" else "processor"} | {total:.1f} | {total / base[0]:.2f} | '
            f'{start:.1f} | {each:.1f} | {ratio} |'
        )
    return '\n'.join(lines) + '\n'


def mmdet_evaluation() -> tuple[str, list[str]]:
    """Config and command of MMDetection's own SSDLite-MobileNetV2 in MMDetection's own tool."""
    if not Path(get_installed_path('mmdet'), '.mim', 'tools', 'test.py').is_file():
        raise UserError('the installed mmdet has no .mim/tools/test.py; install it with pip or mim')
    return mmdet_config(), [sys.executable, '-c', MMDET_TOOL]
