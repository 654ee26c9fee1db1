"""The annotation files that a config uses, and for what."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.fileio import list_from_file

from mixdet.datasets.demo import DemoDataset
from mixdet.datasets.entries import WHOLE, Subset
from mixdet.datasets.issues import ANY, EVALUATION, TRAINING
from mixdet.datasets.wrappers import wrapped_datasets
from mixdet.errors import UserError
from mixdet.registry import DATASETS

UNDRAWN = 'the demo set is drawn when it is first used'


class CocoFile(NamedTuple):
    """A COCO file that a config uses.

    Attributes:
        key: place of the dataset in the config, such as ``train_dataloader.dataset``.
        path: the annotation file.
        images: folder of its images; None leaves them unchecked.
        classes: names of the classes, if the config gives them.
        role: what it is for: ``TRAINING``, ``EVALUATION`` or ``ANY``.
        subset: the images that the data set uses.
        pipeline: its transforms.
    """

    key: str
    path: Path
    images: Optional[Path]
    classes: Optional[tuple[str, ...]]
    role: str = ANY
    subset: Subset = WHOLE
    pipeline: tuple = ()


def coco_files(cfg: Config, parts: tuple[str, ...], unchecked: Optional[list[str]] = None) -> Iterator[CocoFile]:
    """The COCO files that ``cfg`` uses for ``parts`` ('train', 'val', 'test'), each once for each role.

    Left out are datasets that are not read from COCO files, read them in their own way (LVIS, panoptic) or lie in
    remote storage, and a demo set that is not drawn yet: building its dataset draws it, and a check writes nothing.

    Args:
        cfg: the config.
        parts: which data loaders to look at.
        unchecked: gets a line about each data set that is left out.

    Raises:
        UserError: if the type of a dataset is unknown, its annotation file or image folder does not exist, or its
            ``data_prefix`` or classes are not what MMDetection can use.
    """
    seen = []
    for part in parts:
        loader = cfg.get(f'{part}_dataloader')
        if not loader:
            continue
        place = f'{part}_dataloader.dataset'
        if not isinstance(loader.get('dataset'), dict):
            raise UserError(f'{place} is {loader.get("dataset")!r}; give the config of a data set')
        for key, dataset in wrapped_datasets(loader['dataset'], place):
            file = _coco_file(key, dataset, TRAINING if part == 'train' else EVALUATION)
            if isinstance(file, str):
                if unchecked is not None:
                    unchecked.append(f'{key}: {file}')
            elif file[1:] not in seen:
                seen.append(file[1:])
                yield file


def _coco_file(key: str, dataset: dict, role: str) -> Union[CocoFile, str]:
    """The file of a data set, or why it is not checked."""
    cls = _dataset_class(key, dataset.get('type'))
    classes = _classes(key, dataset, cls)
    name = cls.__name__
    if not issubclass(cls, CocoDataset):
        return f'the data of {name} are not checked, only those in COCO format are'
    coco: type[CocoDataset] = cls
    root, ann_file = dataset.get('data_root') or '', dataset.get('ann_file') or ''
    prefixes = _prefixes(key, dataset, coco)
    if any('://' in str(place) for place in (root, ann_file, *prefixes.values())):
        return 'data in remote storage are not checked'  # MMEngine itself does
    if issubclass(cls, DemoDataset) and not Path(root).exists():
        return UNDRAWN
    path = Path(root, ann_file)
    if not path.is_file():
        raise UserError(f'{key}: annotation file {path} does not exist; set data_root and ann_file')
    folder = Path(root)
    for prefix_name, prefix in prefixes.items():
        if prefix_name.startswith('img'):
            folder = Path(root, prefix)
            if not folder.is_dir():
                raise UserError(f'{key}: image folder {folder} does not exist; set data_root and data_prefix')
    if coco.load_data_list is not CocoDataset.load_data_list or coco.COCOAPI is not CocoDataset.COCOAPI:
        return f'the data of {name} are not checked: it reads its files in its own way'
    return CocoFile(key, path, folder, classes, role, _subset(dataset), tuple(dataset.get('pipeline') or ()))


def _dataset_class(key: str, name: object) -> type:
    """The class of a dataset, by name or itself; not always a ``CocoDataset``."""
    if isinstance(name, type):
        return name
    with DATASETS.switch_scope_and_registry('mmdet') as registry:
        cls = registry.get(name) if isinstance(name, str) else None
    if cls is None:
        raise UserError(f'{key}.type: there is no dataset {name!r}')
    return cls


def _classes(key: str, dataset: dict, cls: type) -> Optional[tuple[str, ...]]:
    """The names of the classes; None if neither the config nor the data set's class gives any."""
    metainfo = dataset.get('metainfo')
    if metainfo is None:
        metainfo = {}
    if not isinstance(metainfo, dict):
        raise UserError(f'{key}.metainfo is {metainfo!r}; write metainfo=dict(classes=(...))')
    where = f'{key}.metainfo.classes'
    if 'classes' not in metainfo:
        if 'CLASSES' in metainfo:
            raise UserError(f"{key}.metainfo has 'CLASSES', which MMDetection 3 does not read; write it as 'classes'")
        classes = getattr(cls, 'METAINFO', {}).get('classes')
        return tuple(classes) if classes and not isinstance(classes, str) else None
    classes = metainfo['classes']
    if isinstance(classes, str) and '://' in classes:
        return None
    if isinstance(classes, str):
        if not Path(classes).is_file():  # MMEngine reads a file with a name on each line
            raise UserError(
                f'{where} is the text {classes!r}, of which every letter would be a class; a single class needs a '
                f'comma: ({classes!r},)'
            )
        classes = list_from_file(classes)
    if not isinstance(classes, (list, tuple)) or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{where} is {classes!r}; it must be a tuple of names, such as ('cat', 'dog')")
    if not classes:
        raise UserError(f'{where} is empty; give the names of the classes')
    twice = [name for name in dict.fromkeys(classes) if classes.count(name) > 1]
    if twice:
        raise UserError(f'{where} has {twice[0]!r} more than once')
    return tuple(classes)


def _prefixes(key: str, dataset: dict, cls: type[CocoDataset]) -> dict[str, str]:
    """``data_prefix``, which must hold what ``CocoDataset`` looks for in it."""
    prefixes: Any = dataset.get('data_prefix', {})
    if not isinstance(prefixes, dict):
        raise UserError(f"{key}.data_prefix is {prefixes!r}; write data_prefix=dict(img='folder of the images/')")
    for name, prefix in prefixes.items():
        if not isinstance(prefix, str):
            raise UserError(f"{key}.data_prefix.{name} is {prefix!r}; give a folder, '' for data_root itself")
    if 'img' not in prefixes and cls.parse_data_info is CocoDataset.parse_data_info:
        other = next((name for name in prefixes if name.startswith('im')), None)
        found = f'has {other!r}, which {cls.__name__} does not read' if other else 'is missing'
        found = found if other or not prefixes else f'has {", ".join(map(repr, prefixes))} alone'
        folder = prefixes[other] if other else ''
        raise UserError(f'{key}.data_prefix {found}; write data_prefix=dict(img={folder!r})')
    return prefixes


def _subset(dataset: dict) -> Subset:
    filter_cfg = {} if dataset.get('test_mode') else dataset.get('filter_cfg') or {}
    return Subset(filter_cfg.get('min_size', 0), filter_cfg.get('filter_empty_gt', False), dataset.get('indices'))
