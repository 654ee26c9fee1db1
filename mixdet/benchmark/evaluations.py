"""How long a whole evaluation takes, from the start of ``tools/test.py`` to its end."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.utils import get_installed_path

from mixdet.benchmark.machine import environment
from mixdet.benchmark.peers import build_detector, calibrate_norms, mmdet_ssdlite_config
from mixdet.engine.config import config_text
from mixdet.errors import UserError

# MMDetection's own tool; mixdet is imported for mmcv's operators, which mmcv-lite lacks
MMDET_TOOL = (
    'import os, runpy, sys, mixdet; from mmengine.utils import get_installed_path; '
    "runpy.run_path(os.path.join(get_installed_path('mmdet'), '.mim', 'tools', 'test.py'), run_name='__main__')"
)


class ProcessTime(NamedTuple):
    """Seconds that a process took: wall-clock time, and CPU time of all its threads."""

    wall: float
    cpu: float


class Evaluation(NamedTuple):
    """Two commands that test a detector: on all images, and on the first few, which shows the time to start up."""

    name: str
    on_all: list[str]
    on_few: list[str]


class EvaluationTimes(NamedTuple):
    """The times of both commands of an ``Evaluation``, one of each per round."""

    on_all: list[ProcessTime]
    on_few: list[ProcessTime]


def write_evaluation(
    name: str, cfg: Config, tool: Sequence[str], folder: Path, ann_file: Path, images: Path, test_cfg: dict, few: int
) -> Evaluation:
    """Write configs and a checkpoint of random weights into ``folder``, and return the commands that test them.

    Args:
        name: of the evaluation and its files.
        cfg: the config, changed in place: it will read these images in batches of ``few``, without worker processes.
        tool: the command that takes config and checkpoint.
        folder: for the files.
        ann_file, images: annotations in COCO's format and the folder of their images.
        test_cfg: the settings of NMS, the same for all detectors that are compared.
        few: the number of images in the short evaluation.
    """
    size = next((t['scale'] for t in cfg.test_dataloader.dataset.pipeline if 'scale' in t), (320, 320))
    cfg.model.test_cfg = test_cfg
    if str(cfg.model.bbox_head.type).endswith('SSDHead'):
        cfg.model.bbox_head.type = 'mixdet.SSDHead'
    noise = torch.randn(8, 3, *size[::-1], generator=torch.Generator().manual_seed(0))
    model = calibrate_norms(build_detector(cfg), noise)
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
        path.write_text(config_text(cfg), encoding='utf-8')
        commands.append([*tool, str(path), str(checkpoint), '--work-dir', str(folder / 'work_dirs' / path.stem)])
    return Evaluation(name, *commands)


def time_process(command: list[str], folder: Path, threads: int) -> ProcessTime:
    """Run ``command`` in ``folder`` to its end. Raises UserError with the last line of its output if it fails."""
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
    return ProcessTime(wall, usage.ru_utime + usage.ru_stime)


def time_evaluations(
    evaluations: Sequence[Evaluation], folder: Path, rounds: int, threads: int, progress: Callable[[str], object]
) -> dict[str, EvaluationTimes]:
    """Run both commands of all ``evaluations`` in turn, ``rounds`` times; ``progress`` gets a line for each."""
    times = {each.name: EvaluationTimes([], []) for each in evaluations}
    for number in range(1, rounds + 1):
        for each in evaluations:
            whole = time_process(each.on_all, folder, threads)
            times[each.name].on_all.append(whole)
            times[each.name].on_few.append(time_process(each.on_few, folder, threads))
            progress(f'round {number}: {each.name}: {whole.wall:.1f} s, {whole.cpu:.1f} s of CPU time')
    return times


def evaluations_markdown(times: dict[str, EvaluationTimes], images: int, few: int) -> str:
    """A table of the medians; ratios are over the last evaluation.

    What all ``images`` take longer than the first ``few`` is the time of each further image; the rest is start-up.
    """
    rows = {}
    for name, (on_all, on_few) in times.items():
        for clock in ProcessTime._fields:
            total, short = (statistics.median(getattr(once, clock) for once in part) for part in (on_all, on_few))
            per_image = (total - short) / (images - few)
            rows[name, clock] = (1e3 * total / images, short - few * per_image, 1e3 * per_image)
    last = list(times)[-1]
    lines = [
        f'{images} images, {len(times[last].on_all)} round(s), on {environment()}. ms per image.',
        '',
        f'| | | whole evaluation | over {last} | start-up and summary, s | each further image | over {last} |',
        '|---|---|---|---|---|---|---|',
    ]
    for (name, clock), (per_image_overall, start_up, per_image) in rows.items():
        base = rows[last, clock]
        ratio = f'{per_image / base[2]:.2f}' if base[2] > 0 else '-'
        lines.append(
            f'| {name} | {"wall-clock" if clock == "wall" else "CPU"} time | {per_image_overall:.1f} | '
            f'{per_image_overall / base[0]:.2f} | {start_up:.1f} | {per_image:.1f} | {ratio} |'
        )
    return '\n'.join(lines) + '\n'


def mmdet_evaluation() -> tuple[str, list[str]]:
    """Config and command for MMDetection's own SSDLite-MobileNetV2 in MMDetection's own test tool."""
    if not Path(get_installed_path('mmdet'), '.mim', 'tools', 'test.py').is_file():
        raise UserError('the installed mmdet has no .mim/tools/test.py; install it with pip or mim')
    return mmdet_ssdlite_config(), [sys.executable, '-c', MMDET_TOOL]
