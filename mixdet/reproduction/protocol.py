"""Training and evaluating many configs under one protocol, one after another; an interrupted series continues."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import torch
from mmengine.config import Config

from mixdet.datasets.reading import read_coco
from mixdet.engine.config import load_config
from mixdet.errors import UserError
from mixdet.evaluation.results import RESULTS_FOLDER
from mixdet.text import print


class DatasetPaths(NamedTuple):
    """A data set in COCO's format: its folder ``root``, and in it the annotation files and image folders."""

    root: str
    train_ann: str = 'annotations/instances_train2017.json'
    train_images: str = 'train2017/'
    val_ann: str = 'annotations/instances_val2017.json'
    val_images: str = 'val2017/'


class ShortSchedule(NamedTuple):
    """A schedule for a small data set: ``cfg`` as ``_base_/schedules/schedule_small.py``, for ``epochs`` epochs."""

    cfg: Config
    epochs: int


def protocol_config(path: Path, data: DatasetPaths, seed: int, schedule: Optional[ShortSchedule] = None) -> Config:
    """The config in ``path``, trained and evaluated on ``data`` with a fixed seed.

    Args:
        path: a config of Table 1.
        data: the data set.
        seed: of the training.
        schedule: replaces the config's own (8 x 24 images, 600 epochs of COCO).

    Raises:
        UserError: if the config cannot be read, or an annotation file is missing or has no categories.
    """
    cfg = load_config(str(path))
    root = Path(data.root).resolve()
    for ann in (data.train_ann, data.val_ann):
        if not (root / ann).is_file():
            raise UserError(f'annotation file {root / ann} does not exist; set --data-root, --train-ann and --val-ann')
    categories = read_coco(root / data.train_ann, segmentations=False)['categories']
    classes = tuple(category['name'] for category in categories)
    if not classes:
        raise UserError(f'annotation file {root / data.train_ann} has no categories')
    common = dict(data_root=f'{root}/', metainfo=dict(classes=classes))
    train, val = cfg.train_dataloader, cfg.val_dataloader
    train.dataset.dataset.update(common, ann_file=data.train_ann, data_prefix=dict(img=data.train_images))
    val.dataset.update(common, ann_file=data.val_ann, data_prefix=dict(img=data.val_images))
    cfg.val_evaluator.ann_file = str(root / data.val_ann)
    cfg.test_dataloader, cfg.test_evaluator = val, cfg.val_evaluator
    cfg.model.bbox_head.num_classes = len(classes)
    cfg.randomness = dict(seed=seed)
    if not torch.cuda.is_available():
        cfg.custom_hooks.append(dict(type='mixdet.ChannelsLastHook'))
    if schedule is not None:
        train.dataset.times = 1
        train.dataset.dataset.filter_cfg.min_size = 1
        train.batch_size = schedule.cfg.auto_scale_lr.base_batch_size
        train.num_workers = val.num_workers = 2
        for key in ('optim_wrapper', 'auto_scale_lr', 'param_scheduler', 'train_cfg'):
            cfg[key] = schedule.cfg[key]
        cfg.train_cfg.update(max_epochs=schedule.epochs, val_interval=schedule.epochs)
        cfg.param_scheduler[1].update(end=schedule.epochs, T_max=schedule.epochs)
        cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1, save_best=None)
        cfg.default_hooks.logger.interval = 10
    return cfg


def train_and_test(cfg: Config, name: str, work_dir: Path, tools: Path, gpus: int = 0) -> None:
    """Train ``cfg`` with ``tools/train.py`` and evaluate its last checkpoint with ``tools/test.py``.

    A training that was interrupted is resumed; one that has been evaluated is not repeated.

    Args:
        cfg: from ``protocol_config``.
        name: name of the config, by which its results are found.
        work_dir: its work dir; the config is written beside it.
        tools: folder of the tools.
        gpus: number of processes, one per GPU; 0 for a single process on the CPU or GPU that there is.

    Raises:
        UserError: if the work dir was begun with other settings, or a tool fails.
    """
    config = work_dir.with_name(f'{name}.py')  # MMEngine puts its own dump into the work dir
    if config.is_file() and config.read_text(encoding='utf-8') != cfg.pretty_text:
        raise UserError(f'{config} was written with other settings; give another --work-dir or remove {work_dir}')
    last = f'epoch_{cfg.train_cfg.max_epochs}'
    if (work_dir / RESULTS_FOLDER / f'{last}.json').is_file():
        print(f'{work_dir}: already trained and evaluated')
        return
    work_dir.mkdir(parents=True, exist_ok=True)
    config.write_text(cfg.pretty_text, encoding='utf-8')
    if not (work_dir / f'{last}.pth').is_file():
        resume = ['--resume'] if (work_dir / 'last_checkpoint').is_file() else []
        _start_tool(tools, 'train', [config], ['--work-dir', work_dir, *resume], gpus)
    _start_tool(tools, 'test', [config, work_dir / f'{last}.pth'], ['--work-dir', work_dir], gpus)


def _start_tool(tools: Path, name: str, arguments: Sequence, options: Sequence, gpus: int) -> None:
    if gpus:
        command = ['bash', tools / f'dist_{name}.sh', *arguments, gpus, *options]
    else:
        command = [sys.executable, tools / f'{name}.py', *arguments, *options]
    status = subprocess.run([str(part) for part in command]).returncode
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise UserError(f'tools/{name}.py failed on {arguments[0]} (status {status}); run the same command to continue')
