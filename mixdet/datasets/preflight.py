"""Are a config's annotation files, image folders and class names right? Asked before anything slow begins."""

import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from mmdet.datasets import CocoDataset

from mixdet.datasets.demo import DemoDataset, make_demo_data
from mixdet.errors import UserError
from mixdet.registry import DATASETS

PARSED_WHOLE = 50_000_000  # characters; about a second


def check_datasets(cfg, parts: tuple[str, ...]) -> None:
    """Check the COCO-format data of ``cfg`` for each of ``parts`` ('train', 'val', 'test').

    Raises:
        UserError: naming the file, folder or class that is wrong, the config key it came from and the cure.
    """
    for part in parts:
        loader = cfg.get(f'{part}_dataloader')
        if loader:
            for key, dataset in _innermost(loader['dataset'], f'{part}_dataloader.dataset'):
                _check_dataset(key, dataset)


def _innermost(dataset: dict, key: str) -> Iterator[tuple[str, dict]]:
    """Datasets inside wrappers such as RepeatDataset and ConcatDataset, with their place in the config."""
    if 'datasets' in dataset:
        for i, inner in enumerate(dataset['datasets']):
            yield from _innermost(inner, f'{key}.datasets.{i}')
    elif 'dataset' in dataset:
        yield from _innermost(dataset['dataset'], f'{key}.dataset')
    else:
        yield key, dataset


def _check_dataset(key: str, dataset: dict) -> None:
    cls = dataset['type'] if isinstance(dataset['type'], type) else _dataset_class(key, dataset['type'])
    if not issubclass(cls, CocoDataset):
        return
    root = dataset.get('data_root') or ''
    if '://' in root:
        return  # remote storage is MMEngine's to check
    if issubclass(cls, DemoDataset):
        make_demo_data(root)
    ann_file = Path(root, dataset.get('ann_file') or '')
    if not ann_file.is_file():
        raise UserError(f'{key}: annotation file {ann_file} does not exist; set data_root and ann_file')
    for name, prefix in (dataset.get('data_prefix') or {}).items():
        if name.startswith('img') and not Path(root, prefix).is_dir():
            raise UserError(f'{key}: image folder {Path(root, prefix)} does not exist; set data_root and data_prefix')
    classes = (dataset.get('metainfo') or {}).get('classes', cls.METAINFO.get('classes'))
    own_reading = cls.load_data_list is not CocoDataset.load_data_list  # of categories, as LVIS has it
    if classes and not isinstance(classes, str) and not own_reading:
        _check_classes(f'{key}.metainfo.classes', list(classes), ann_file)


def _dataset_class(key: str, name: str) -> type:
    with DATASETS.switch_scope_and_registry('mmdet') as registry:
        cls = registry.get(name)
    if cls is None:
        raise UserError(f'{key}.type: there is no dataset {name!r}')
    return cls


def _check_classes(key: str, classes: list[str], ann_file: Path) -> None:
    """MMDetection drops the boxes of a class that is not in the file, and mislabels classes in another order."""
    names = read_categories(ann_file)
    for name in classes:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f'did you mean {near[0]!r}?' if near else f'it has {", ".join(names[:10])}'
            raise UserError(f'{key}: class {name!r} is not in {ann_file}; {hint}')
    in_file_order = [name for name in names if name in classes]
    if classes != in_file_order:
        raise UserError(
            f'{key}: classes must stand in the order of {ann_file}, or MMDetection swaps their labels: '
            f'{tuple(in_file_order)}'
        )


def read_categories(ann_file: Path) -> list[str]:
    """Category names of a COCO file in its order.

    A long file (COCO's has 450 MB) is searched for them instead of parsed. Raises UserError if the file is not JSON or
    has no list of categories.
    """
    text = ann_file.read_text(encoding='utf-8', errors='replace')
    decoder = json.JSONDecoder()
    if len(text) < PARSED_WHOLE:
        try:
            decoder.decode(text)
        except json.JSONDecodeError as error:
            raise UserError(f'{ann_file} is not valid JSON or is cut off: {error}') from error
    for match in re.finditer(r'"categories"\s*:\s*(?=\[)', text):
        try:
            categories, _ = decoder.raw_decode(text, match.end())
            return [category['name'] for category in categories]
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    raise UserError(f'{ann_file} has no list "categories" of objects with "id" and "name"; is it a COCO file?')
