"""Are a config's annotation files, images and class names right? Asked before anything slow begins."""

import difflib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Optional

from mmdet.datasets import CocoDataset
from mmengine.hooks import Hook

from mixdet.datasets.annotations import check_coco, read_coco
from mixdet.datasets.demo import DemoDataset, make_demo_data
from mixdet.datasets.images import check_images
from mixdet.datasets.issues import ERROR, KINDS, WARNING, Report
from mixdet.datasets.wrappers import wrapped_datasets
from mixdet.errors import UserError
from mixdet.registry import DATASETS, HOOKS


class Source(NamedTuple):
    """A COCO file that a config uses: its place in the config, the file, the images, the classes if it names them."""

    key: str
    ann_file: Path
    images: Optional[Path]
    classes: Optional[tuple]
    trained: bool


@HOOKS.register_module()
class DatasetCheckHook(Hook):
    """``check_datasets`` before a training, in any config: ``custom_hooks = [dict(type='mixdet.DatasetCheckHook')]``.

    mixdet's own tools check without it.

    Args:
        decode: read every image as well.
    """

    priority = 'HIGHEST'

    def __init__(self, decode: bool = False) -> None:
        self.decode = decode

    def before_train(self, runner) -> None:
        """Check the data of training and validation."""
        if runner.rank == 0:
            check_datasets(runner.cfg, ('train', 'val'), self.decode)


def check_datasets(cfg, parts: tuple[str, ...], decode: bool = False) -> None:
    """Check the COCO-format data of ``cfg`` for each of ``parts`` ('train', 'val', 'test').

    What will be left out or changed is printed, a line for each kind of fault.

    Args:
        cfg: the config.
        parts: the data loaders to check.
        decode: read every image as well.

    Raises:
        UserError: naming the file, folder, class or annotation that is wrong, the config key it came from and the cure.
    """
    for source in sources(cfg, parts):
        report, _ = examine(source, cfg, decode)
        errors = list(report.of(ERROR))
        if errors:
            more = f' ({len(errors)} such faults in all: tools/check_dataset.py)' if len(errors) > 1 else ''
            raise UserError(f'{source.key}: {source.ann_file}: {errors[0]}{more}')
        if os.environ.get('RANK', '0') != '0':  # of several processes one tells
            continue
        first = {fault.kind: fault for fault in reversed(list(report.of(WARNING)))}
        for kind, count in report.counts().items():
            if kind in first:
                more = f', such as {first[kind].where}' if count > 1 else f': {first[kind].where}'
                print(f'{source.ann_file}: {count} x {kind}{more}; {KINDS[kind].effect}', file=sys.stderr)


def sources(cfg, parts: tuple[str, ...]) -> Iterator[Source]:
    """The COCO files that ``cfg`` uses for ``parts``, each once; others are left to their data sets.

    Raises:
        UserError: if a data set's type is unknown, or its file or folder is missing.
    """
    seen = set()
    for part in parts:
        loader = cfg.get(f'{part}_dataloader')
        if loader:
            for key, dataset in wrapped_datasets(loader['dataset'], f'{part}_dataloader.dataset'):
                source = _source(key, dataset, part == 'train')
                if source is not None and source[1:] not in seen:
                    seen.add(source[1:])
                    yield source


def examine(source: Source, cfg, decode: bool, masks: bool = False, progress=iter) -> tuple[Report, dict]:
    """Every fault of ``source``, and a repaired copy of its content, ``masks`` included or not."""
    report = Report(str(source.ann_file))
    data = read_coco(source.ann_file, report, masks)
    if source.classes is not None:
        _check_classes(source, data['categories'], report)
        if source.trained:
            _check_heads(cfg.get('model') or {}, 'model', source.classes, report)
    fixed = check_coco(data, report, source.classes, progress)
    if source.images is None:
        return report, fixed
    unusable = check_images(fixed['images'], source.images, report, decode, progress)
    fixed['images'] = [image for image in fixed['images'] if image['id'] not in unusable]
    fixed['annotations'] = [entry for entry in fixed['annotations'] if entry['image_id'] not in unusable]
    return report, fixed


def _source(key: str, dataset: dict, trained: bool) -> Optional[Source]:
    cls = dataset['type'] if isinstance(dataset['type'], type) else _dataset_class(key, dataset['type'])
    root = dataset.get('data_root') or ''
    own_reading = not issubclass(cls, CocoDataset) or cls.load_data_list is not CocoDataset.load_data_list
    if not issubclass(cls, CocoDataset) or '://' in root:
        return None  # remote storage is MMEngine's to check
    if issubclass(cls, DemoDataset):
        make_demo_data(root)
    ann_file = Path(root, dataset.get('ann_file') or '')
    if not ann_file.is_file():
        raise UserError(f'{key}: annotation file {ann_file} does not exist; set data_root and ann_file')
    folder = Path(root)
    for name, prefix in (dataset.get('data_prefix') or {}).items():
        if name.startswith('img'):
            folder = Path(root, prefix)
            if not folder.is_dir():
                raise UserError(f'{key}: image folder {folder} does not exist; set data_root and data_prefix')
    if own_reading:
        return None  # of categories, as LVIS has it
    classes = (dataset.get('metainfo') or {}).get('classes', cls.METAINFO.get('classes'))
    return Source(key, ann_file, folder, tuple(classes) if classes and not isinstance(classes, str) else None, trained)


def _dataset_class(key: str, name: str) -> type:
    with DATASETS.switch_scope_and_registry('mmdet') as registry:
        cls = registry.get(name)
    if cls is None:
        raise UserError(f'{key}.type: there is no dataset {name!r}')
    return cls


def _check_classes(source: Source, categories: list, report: Report) -> None:
    """MMDetection drops the boxes of a class that is not in the file, and mislabels classes in another order."""
    names = [category.get('name') for category in categories if isinstance(category, dict)]
    names = [name for name in names if isinstance(name, str)]
    where = f'{source.key}.metainfo.classes'
    for name in source.classes:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f'did you mean {near[0]!r}?' if near else f'it has {", ".join(names[:10])}'
            report.add('class not in the file', where, f'class {name!r} is not in {source.ann_file}; {hint}')
    in_file_order = [name for name in dict.fromkeys(names) if name in source.classes]
    if set(source.classes) <= set(names) and list(source.classes) != in_file_order:
        report.add(
            'classes in another order',
            where,
            f'they must stand in the order of {source.ann_file}: {tuple(in_file_order)}',
        )
    for name in dict.fromkeys(names):
        if name not in source.classes:
            report.add('class not in the config', where, repr(name))


def _check_heads(node: dict, key: str, classes: tuple, report: Report) -> None:
    """Heads that classify must have one output a class; a proposal head has its own rule."""
    for name, value in node.items():
        inner = value if isinstance(value, (list, tuple)) else [value]
        for item in inner:
            if isinstance(item, dict):
                _check_heads(item, f'{key}.{name}', classes, report)
    number = node.get('num_classes')
    if number is not None and 'bbox_head' in key.split('.') and number != len(classes):
        report.add('num_classes', f'{key}.num_classes', f'{number} for {len(classes)} classes')
