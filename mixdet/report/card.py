"""The model card: what is trained, on which data, by which versions, and what the network costs."""

import platform
import shlex
import subprocess
import sys
from collections.abc import Sized
from importlib import metadata
from pathlib import Path
from typing import Optional, Union

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

import mixdet
from mixdet.benchmark.complexity import count_complexity
from mixdet.benchmark.latency import time_network
from mixdet.benchmark.machine import device_name
from mixdet.datasets.wrappers import unwrap_dataset, wrapped_datasets
from mixdet.engine.wrappers import unwrap_model
from mixdet.errors import first_line
from mixdet.report.start import weight_sources

PACKAGES = ('mmengine', 'onedl-mmengine', 'mmcv', 'mmcv-lite', 'onedl-mmcv', 'mmdet', 'onedl-mmdetection', 'numpy')
SPREAD, WAITED = 1.5, 1.25  # ratios of the quartiles, and of clock to CPU time, above which a machine was busy


def model_card(runner: Runner) -> dict:
    """The card of a training that is about to begin, in values that JSON can hold."""
    cfg = runner.cfg
    model = unwrap_model(runner.model)
    size = input_size(cfg)
    return dict(
        name=Path(cfg.filename).stem if cfg.filename else runner.experiment_name,
        command=shlex.join(['python', *sys.argv]),
        model=type(model).__name__,
        backbone=type(model.backbone).__name__ if hasattr(model, 'backbone') else '',
        input_size=list(size),
        **_costs(model, size),
        device=device_name(),
        threads=torch.get_num_threads(),
        processes=runner.world_size,
        train=_data(runner.train_dataloader.dataset, cfg.get('train_dataloader')),
        val=_data(runner.val_dataloader.dataset, cfg.get('val_dataloader')) if runner.val_loop else {},
        classes=list((runner.train_dataloader.dataset.metainfo or {}).get('classes', ())),
        batch_size=(cfg.train_dataloader.get('batch_size') or 1) * runner.world_size,
        optimizer=_optimizer(cfg.optim_wrapper.get('optimizer', {})),
        losses=_losses(model),
        start=weight_sources(model, None if cfg.get('resume') else cfg.get('load_from')),
        seed=runner.seed,
        deterministic=bool(runner.deterministic),
        versions=_versions(),
        revision=git_revision(),
        config=cfg.pretty_text,
    )


def input_size(cfg: Config) -> tuple[int, int]:
    """Height and width, px, of the images that reach the network in validation; 320x320 if the config does not say."""
    loader = cfg.get('val_dataloader') or cfg.get('test_dataloader') or {}
    for step in unwrap_dataset(loader.get('dataset', {})).get('pipeline') or ():
        scale = step.get('scale') if 'Resize' in str(step.get('type')) else None
        if scale:
            width, height = (scale, scale) if isinstance(scale, int) else scale
            return int(height), int(width)
    return 320, 320


def shown_path(path: Union[str, Path]) -> str:
    """``path`` relative to the current folder, if it lies below it."""
    path = Path(path)
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def git_revision() -> str:
    """The revision of the checkout that mixdet runs from, with a plus if files in it are changed; empty without one."""
    folder = Path(mixdet.__file__).resolve().parent
    revision = _git(folder, 'rev-parse', '--short=12', 'HEAD')
    if not revision or not _git(folder, 'ls-files', '__init__.py'):
        return ''  # a package installed inside another repository
    return revision + ('+' if _git(folder, 'status', '--porcelain', '--untracked-files=no') else '')


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(['git', '-C', str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return done.stdout.strip() if done.returncode == 0 else ''


def _costs(model: nn.Module, size: tuple[int, int]) -> dict:
    """Parameters, multiply-adds and latency (ms); only the first for a model that fails on a black image."""
    costs: dict = dict(params=sum(parameter.numel() for parameter in model.parameters()))
    try:
        costs['macs'] = count_complexity(model, size).macs
        device = str(next(model.parameters()).device)
        timing = time_network(model, size, device)
        costs['latency_ms'], costs['latency_rounds'] = timing.wall, timing.rounds
        costs['latency_quartiles_ms'] = [timing.low, timing.high]
        if device == 'cpu':
            costs['latency_cpu_ms'] = timing.cpu
    except Exception as error:  # a card must not stop the training of a detector it does not know
        costs['not_measured'] = f'{type(error).__name__}: {first_line(error)}'
    return costs


def describe_latency(card: dict) -> str:
    """The network's time on one image with its spread and the CPU time, and whether the machine was too busy for it."""
    if 'latency_ms' not in card:
        return ''
    wall, cpu = card['latency_ms'], card.get('latency_cpu_ms')
    low, high = card.get('latency_quartiles_ms', (wall, wall))
    parts = [f'{wall:.1f} ms']
    if 'latency_rounds' in card:
        parts = [f'{wall:.1f} ms (quartiles {low:.1f} and {high:.1f}, {card["latency_rounds"]} runs)']
    if cpu is not None:
        parts.append(f'CPU time {cpu:.1f} ms')
    if high > SPREAD * low or (cpu is not None and wall > WAITED * cpu):
        parts.append('unsteady: the machine was busy, do not compare')
    return ', '.join(parts)


def _losses(model: nn.Module) -> dict[str, str]:
    """The model's losses by the name of the module, each with its class and weight."""
    return {
        name: f'{type(module).__name__} x {getattr(module, "loss_weight", 1)}'
        for name, module in model.named_modules()
        if name.split('.')[-1].startswith('loss')
    }


def _optimizer(cfg: dict) -> str:
    settings = (f'{key} {value}' for key, value in cfg.items() if key != 'type' and not isinstance(value, dict))
    return ', '.join([str(cfg.get('type', '')), *settings])


def _data(dataset: Sized, loader: Optional[dict]) -> dict:
    """Images per epoch and annotation files of a data set that may be wrapped, such as in a ``RepeatDataset``."""
    inner = wrapped_datasets((loader or {}).get('dataset', {}))
    files = [Path(part.get('data_root') or '', part.get('ann_file') or '') for _, part in inner]
    return dict(images=len(dataset), annotations=', '.join(map(shown_path, files)))


def _versions() -> dict[str, str]:
    versions = dict(mixdet=mixdet.__version__, python=platform.python_version(), torch=torch.__version__)
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if torch.cuda.is_available():
        versions['CUDA'] = str(torch.version.cuda)
    return versions
