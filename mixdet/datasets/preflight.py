"""Checks of a config's annotation files, images and class names, before anything slow begins."""

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Optional

from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mixdet.datasets.annotations import check_coco, read_coco
from mixdet.datasets.demo import DemoDataset
from mixdet.datasets.images import check_images
from mixdet.datasets.issues import ERROR, ISSUE_KINDS, WARNING, IssueLog
from mixdet.datasets.wrappers import wrapped_datasets
from mixdet.errors import UserError
from mixdet.registry import DATASETS, HOOKS
from mixdet.text import print


class CocoFile(NamedTuple):
    """A COCO file that a config uses.

    Attributes:
        key: place of the dataset in the config, such as ``train_dataloader.dataset``.
        path: the annotation file.
        images: folder of its images; None leaves them unchecked.
        classes: names of the classes, if the config gives them.
        trained: whether a model is trained on it.
    """

    key: str
    path: Path
    images: Optional[Path]
    classes: Optional[tuple[str, ...]]
    trained: bool


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

    What training would leave out or change is printed to stderr, one line for each kind of issue.

    Args:
        cfg: the config.
        parts: which data loaders to check.
        decode: decode every image as well.

    Raises:
        UserError: on an error, with its config key, the file and the folder, class or annotation.
    """
    for file in coco_files(cfg, parts):
        log, _ = examine(file, cfg, decode)
        errors = list(log.of(ERROR))
        if errors:
            more = f' ({len(errors)} errors in all: tools/check_dataset.py lists them)' if len(errors) > 1 else ''
            raise UserError(f'{file.key}: {file.path}: {errors[0]}{more}')
        if os.environ.get('RANK', '0') != '0':  # one of several processes prints
            continue
        first = {issue.kind: issue for issue in reversed(list(log.of(WARNING)))}
        for kind, count in log.counts().items():
            if kind in first:
                more = f', such as {first[kind].where}' if count > 1 else f': {first[kind].where}'
                print(f'{file.path}: {count} x {kind}{more}; {ISSUE_KINDS[kind].effect}', file=sys.stderr)


def coco_files(cfg: Config, parts: tuple[str, ...]) -> Iterator[CocoFile]:
    """The COCO files that ``cfg`` uses for ``parts``, each once.

    Left out are datasets that are not read from COCO files, read their categories in their own way (LVIS) or lie in
    remote storage, and a demo set that is not drawn yet: building its dataset draws it, and a check writes nothing.

    Raises:
        UserError: if the type of a dataset is unknown, or its annotation file or image folder does not exist.
    """
    seen = set()
    for part in parts:
        loader = cfg.get(f'{part}_dataloader')
        if loader:
            for key, dataset in wrapped_datasets(loader['dataset'], f'{part}_dataloader.dataset'):
                file = _coco_file(key, dataset, part == 'train')
                if file is not None and file[1:] not in seen:
                    seen.add(file[1:])
                    yield file


def examine(
    file: CocoFile,
    cfg: Config,
    decode: bool,
    segmentations: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> tuple[IssueLog, dict]:
    """Every issue of ``file``, and a repaired copy of its content.

    Args:
        file: from ``coco_files``.
        cfg: the config, whose model must fit the classes.
        decode: decode every image as well.
        segmentations: keep the segmentations in the copy.
        progress: wraps the lists of annotations and images, to show a progress bar.

    Raises:
        UserError: if the file cannot be read.
    """
    log = IssueLog(str(file.path))
    data = read_coco(file.path, log, segmentations)
    if file.classes is not None:
        _check_classes(file, file.classes, data['categories'], log)
        if file.trained:
            _check_heads(cfg.get('model') or {}, 'model', file.classes, log)
    fixed = check_coco(data, log, file.classes, progress)
    if file.images is None:
        return log, fixed
    unusable = check_images(fixed['images'], file.images, log, decode, progress)
    fixed['images'] = [image for image in fixed['images'] if image['id'] not in unusable]
    fixed['annotations'] = [entry for entry in fixed['annotations'] if entry['image_id'] not in unusable]
    return log, fixed


def _coco_file(key: str, dataset: dict, trained: bool) -> Optional[CocoFile]:
    cls = _dataset_class(key, dataset['type'])
    if not issubclass(cls, CocoDataset):
        return None
    root, ann_file = dataset.get('data_root') or '', dataset.get('ann_file') or ''
    prefixes = dataset.get('data_prefix') or {}
    if any('://' in str(place) for place in (root, ann_file, *prefixes.values())):
        return None  # in remote storage, which MMEngine itself checks
    if issubclass(cls, DemoDataset) and not Path(root).exists():
        return None  # drawn when the dataset is built
    path = Path(root, ann_file)
    if not path.is_file():
        raise UserError(f'{key}: annotation file {path} does not exist; set data_root and ann_file')
    folder = Path(root)
    for name, prefix in prefixes.items():
        if name.startswith('img'):
            folder = Path(root, prefix)
            if not folder.is_dir():
                raise UserError(f'{key}: image folder {folder} does not exist; set data_root and data_prefix')
    if cls.load_data_list is not CocoDataset.load_data_list:
        return None  # reads its categories in its own way
    classes = (dataset.get('metainfo') or {}).get('classes', cls.METAINFO.get('classes'))
    return CocoFile(key, path, folder, tuple(classes) if classes and not isinstance(classes, str) else None, trained)


def _dataset_class(key: str, name: object) -> type[CocoDataset]:
    """The class of a dataset, by name or itself; not always a ``CocoDataset``."""
    if isinstance(name, type):
        return name
    with DATASETS.switch_scope_and_registry('mmdet') as registry:
        cls = registry.get(name)
    if cls is None:
        raise UserError(f'{key}.type: there is no dataset {name!r}')
    return cls


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
        log.add('classes in another order', where, f'their order in {file.path} is {in_order}')
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
