"""Training and evaluating many configs under one protocol, one after another, going on where it stopped."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import torch
from mmengine.config import Config

from mixdet.datasets.annotations import read_coco
from mixdet.errors import UserError
from mixdet.evaluation.results import RESULTS_FOLDER


class Data(NamedTuple):
    """A data set in COCO's format: ``root``, and in it the annotation files and image folders."""

    root: str
    train_ann: str = 'annotations/instances_train2017.json'
    train_images: str = 'train2017/'
    val_ann: str = 'annotations/instances_val2017.json'
    val_images: str = 'val2017/'


def protocol_config(path: Path, data: Data, seed: int, small: Optional[Config] = None, epochs: int = 0) -> Config:
    """The config in ``path`` on ``data`` with a fixed seed.

    Without ``epochs`` its own schedule is kept (8 x 24 images, 600 epochs of COCO). With ``epochs`` it is trained for
    that many passes over the data, with the schedule ``small`` instead.

    Raises:
        UserError: if an annotation file is missing or has no categories.
    """
    cfg = Config.fromfile(path)
    root = Path(data.root).resolve()
    for ann in (data.train_ann, data.val_ann):
        if not (root / ann).is_file():
            raise UserError(f'annotation file {root / ann} does not exist; set --data-root, --train-ann and --val-ann')
    categories = read_coco(root / data.train_ann, segmentations=False)['categories']
    classes = tuple(category['name'] for category in categories)
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
    if epochs:
        train.dataset.times = 1
        train.dataset.dataset.filter_cfg.min_size = 1
        train.batch_size = small.auto_scale_lr.base_batch_size
        train.num_workers = val.num_workers = 2
        for key in ('optim_wrapper', 'auto_scale_lr', 'param_scheduler', 'train_cfg'):
            cfg[key] = small[key]
        cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
        cfg.param_scheduler[1].update(end=epochs, T_max=epochs)
        cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1, save_best=None)
        cfg.default_hooks.logger.interval = 10
    return cfg


def train_and_test(cfg: Config, name: str, work_dir: Path, tools: Path, gpus: int = 0) -> None:
    """Train ``cfg`` with ``tools/train.py`` and evaluate its last checkpoint with ``tools/test.py``, each in a process.

    What has been evaluated is not done again, and what was interrupted is resumed.

    Args:
        cfg: from ``protocol_config``.
        name: name of the config, under which its results are found.
        work_dir: its work dir; the config is kept beside it.
        tools: folder of the tools.
        gpus: processes, one per GPU; 0 for a single process on whatever there is.

    Raises:
        UserError: if the work dir belongs to other settings, or a tool fails.
    """
    config = work_dir.with_name(f'{name}.py')  # MMEngine puts its own dump into the work dir
    if config.is_file() and config.read_text() != cfg.pretty_text:
        raise UserError(f'{config} was begun with other settings; give another --work-dir or remove {work_dir}')
    last = f'epoch_{cfg.train_cfg.max_epochs}'
    if (work_dir / RESULTS_FOLDER / f'{last}.json').is_file():
        print(f'{work_dir}: done already')
        return
    work_dir.mkdir(parents=True, exist_ok=True)
    config.write_text(cfg.pretty_text)
    if not (work_dir / f'{last}.pth').is_file():
        resume = ['--resume'] if (work_dir / 'last_checkpoint').is_file() else []
        _run(tools, 'train', [config], ['--work-dir', work_dir, *resume], gpus)
    _run(tools, 'test', [config, work_dir / f'{last}.pth'], ['--work-dir', work_dir], gpus)


def _run(tools: Path, name: str, arguments: Sequence, options: Sequence, gpus: int) -> None:
    if gpus:
        command = ['bash', tools / f'dist_{name}.sh', *arguments, gpus, *options]
    else:
        command = [sys.executable, tools / f'{name}.py', *arguments, *options]
    status = subprocess.run([str(part) for part in command]).returncode
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise UserError(f'tools/{name}.py failed on {arguments[0]} (status {status}); the same command goes on there')
