"""Checks of a config's annotation files, images and class names, before anything slow begins."""

import difflib
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from typing import Optional

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mixdet.datasets.annotations import PLAIN, Repair, check_coco
from mixdet.datasets.files import UNDRAWN, CocoFile, coco_files
from mixdet.datasets.images import check_images, image_loader
from mixdet.datasets.issues import (
    CHECK,
    CONFIG,
    ERROR,
    ISSUE_KINDS,
    KEPT,
    NOT_FIXABLE,
    TRAINING,
    WARNING,
    Issue,
    IssueLog,
)
from mixdet.datasets.reading import read_coco
from mixdet.errors import UserError
from mixdet.registry import HOOKS
from mixdet.text import print


@HOOKS.register_module()
class DatasetCheckHook(Hook):
    """Runs ``check_datasets`` before training, in any config.

    ``custom_hooks = [dict(type='mixdet.DatasetCheckHook')]``; the tools of mixdet check without it.

    Args:
        decode: decode every image as well.
    """

    priority = 'HIGHEST'

    def __init__(self, decode: bool = False) -> None:
        self.decode = decode

    def before_train(self, runner: Runner) -> None:
        """Check the data of training and validation, in the first process only."""
        if runner.rank == 0:
            check_datasets(runner.cfg, ('train', 'val'), self.decode)


def check_datasets(cfg: Config, parts: tuple[str, ...], decode: bool = False) -> None:
    """Check the COCO-format data of ``cfg`` for each of ``parts`` ('train', 'val', 'test').

    What training would leave out or change is printed to stderr, one line for each kind of issue, and a line for each
    data set that is not checked.

    Args:
        cfg: the config.
        parts: which data loaders to check.
        decode: decode every image as well.

    Raises:
        UserError: on an error, with its config key, the file and the folder, class or annotation; also if the training
            would have no box at all.
    """
    lines: list[str] = []
    unchecked: list[str] = []
    training: list[IssueLog] = []
    for file in coco_files(cfg, parts, unchecked):
        log, _ = examine(file, cfg, decode)
        errors = list(log.of(ERROR))
        if errors:
            more = f' ({len(errors)} errors in all: tools/check_dataset.py lists them)' if len(errors) > 1 else ''
            raise UserError(f'{file.key}: {file.path}: {errors[0]}{_cure(file, errors)}{more}')
        if file.role == TRAINING:
            training.append(log)
        first = {issue.kind: issue for issue in reversed(list(log.of(WARNING)))}
        for kind, count in log.counts().items():
            if kind in first:
                more = f', such as {first[kind].where}' if count > 1 else f': {first[kind].where}'
                lines.append(f'{file.path}: {count} x {kind}{more}; {first[kind].effect}')
    if training and not any(log.trained for log in training) and not any(map(_is_training, unchecked)):
        files = ', '.join(log.file for log in training)
        raise UserError(f'train_dataloader.dataset: {files} has no box, nothing would be trained; set ann_file')
    if os.environ.get('RANK', '0') == '0':  # one of several processes prints
        for line in (*unchecked, *lines):
            if not line.endswith(UNDRAWN):
                print(line, file=sys.stderr)


def _is_training(key: str) -> bool:
    return key.startswith('train_dataloader')


def examine(
    file: CocoFile,
    cfg: Config,
    decode: bool,
    segmentations: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
    repair: Repair = PLAIN,
) -> tuple[IssueLog, dict]:
    """Every issue of ``file``, and a repaired copy of its content.

    Args:
        file: from ``coco_files``.
        cfg: the config, whose model must fit the classes.
        decode: decode every image as well.
        segmentations: keep the segmentations in the copy.
        progress: wraps the lists of annotations and images, to show a progress bar.
        repair: what is done beyond mending issues.

    Raises:
        UserError: if the file cannot be read.
    """
    log = IssueLog(str(file.path), file.role)
    data = read_coco(file.path, log, segmentations)
    if file.classes is not None:
        _check_classes(file, file.classes, data['categories'], log)
        if file.role == TRAINING:
            _check_heads(cfg.get('model') or {}, 'model', file.classes, log)
    fixed = check_coco(data, log, file.classes, progress, file.subset, repair._replace(folder=file.images))
    if file.images is None:
        return log, fixed
    fixed['images'] = [dict(image) for image in fixed['images']]
    load = image_loader(file.pipeline) if decode else None
    channels = _channels(cfg)
    unusable = check_images(fixed['images'], file.images, log, decode, progress, load, channels)
    fixed['images'] = [image for image in fixed['images'] if image['id'] not in unusable]
    fixed['annotations'] = [entry for entry in fixed['annotations'] if entry['image_id'] not in unusable]
    return log, fixed


def _cure(file: CocoFile, errors: list[Issue]) -> str:
    """How to mend the file, if the first error is one that a repaired copy does not have."""
    kind = errors[0].kind
    fix = ISSUE_KINDS[kind].fix
    if fix in (KEPT, CHECK, CONFIG, NOT_FIXABLE) or kind == 'missing image file':  # then the folder may be wrong
        return ''
    images = ['--images', str(file.images)] if 'image' in kind or kind == 'backslash in file name' else []
    command = shlex.join([str(file.path), *images, '--fix', 'OUT.json'])
    return f'; tools/check_dataset.py {command} writes a repaired copy ({fix})'


def _channels(cfg: Config) -> Optional[int]:
    """Channels that the data preprocessor takes, if the config tells: it refuses other images."""
    preprocessor = (cfg.get('model') or {}).get('data_preprocessor') or {}
    return 3 if len(preprocessor.get('mean') or ()) == 3 else None


def _check_classes(file: CocoFile, classes: tuple[str, ...], categories: list, log: IssueLog) -> None:
    """MMDetection drops the boxes of a class that is not in the file, and swaps the labels of classes out of order."""
    names = [category.get('name') for category in categories if isinstance(category, dict)]
    in_file = list(dict.fromkeys(name for name in names if isinstance(name, str)))
    where = f'{file.key}.metainfo.classes'
    for name in classes:
        if name not in in_file:
            near = difflib.get_close_matches(name, in_file, n=1)
            hint = f'did you mean {near[0]!r}?' if near else f'it has {", ".join(in_file[:10])}'
            log.add('class not in the file', where, f'class {name!r} is not in {file.path}; {hint}')
    in_order = tuple(name for name in in_file if name in classes)
    if set(classes) <= set(in_file) and classes != in_order:
        # data sets that are joined must have the same classes: only the file can follow
        use = '' if '.datasets.' in file.key else 'use that order, or '
        copy = f'tools/check_dataset.py {shlex.quote(str(file.path))} --fix OUT.json --classes {shlex.join(classes)}'
        log.add(
            'classes in another order', where,
            f'their order in {file.path} is {in_order}; {use}write a copy with {classes} by {copy}',
        )  # fmt: skip
    for name in in_file:
        if name not in classes:
            log.add('class not in the config', where, repr(name))


def _check_heads(node: dict, key: str, classes: tuple[str, ...], log: IssueLog) -> None:
    """The number of classes of every ``bbox_head`` below ``node`` must fit; a region proposal head has its own."""
    for name, value in node.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, dict):
                _check_heads(item, f'{key}.{name}', classes, log)
    number = node.get('num_classes')
    if number is not None and 'bbox_head' in key.split('.') and number != len(classes):
        log.add('wrong number of classes', f'{key}.num_classes', f'{number} instead of {len(classes)}')
