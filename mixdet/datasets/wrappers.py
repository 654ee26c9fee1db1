"""Dataset configs inside wrappers such as RepeatDataset and ConcatDataset."""

from collections.abc import Iterator


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
