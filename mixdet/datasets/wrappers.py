"""Data sets, and their configs, inside wrappers such as RepeatDataset and ConcatDataset."""

from collections.abc import Iterator
from typing import Any


def wrapped_datasets(dataset: dict, key: str = 'dataset') -> Iterator[tuple[str, dict]]:
    """The innermost dataset configs of ``dataset``, each with its place in the config.

    Args:
        dataset: config of a dataset, or of wrappers (``dataset=...``, ``datasets=[...]``) around one or more.
        key: the place of ``dataset`` in the config.
    """
    if 'datasets' in dataset:
        for i, inner in enumerate(dataset['datasets']):
            yield from wrapped_datasets(inner, f'{key}.datasets.{i}')
    elif 'dataset' in dataset:
        yield from wrapped_datasets(dataset['dataset'], f'{key}.dataset')
    else:
        yield key, dataset


def unwrap_dataset(dataset: dict) -> dict:
    """The innermost dataset config of ``dataset``; the first, if wrappers concatenate several."""
    return next((inner for _, inner in wrapped_datasets(dataset)), dataset)


def inner_datasets(dataset: Any) -> Iterator[Any]:
    """The data set objects that ``dataset`` wraps, innermost first, and itself."""
    own = vars(dataset)
    wrapped = [own[name] for name in ('dataset', '_dataset') if name in own]
    for inner in [*wrapped, *own.get('datasets', ())]:
        yield from inner_datasets(inner)
    yield dataset


def transforms_of(dataset: Any) -> list:
    """The list of the transforms of a data set's own pipeline, itself and not a copy; an empty one without pipeline."""
    pipeline = vars(dataset).get('pipeline')
    transforms = getattr(pipeline, 'transforms', pipeline)
    return transforms if isinstance(transforms, list) else []
