"""A fingerprint of training data, by which a resumed run sees that they are others."""

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import Any, Optional

from mixdet.datasets.statistics import MOST_IMAGES


def fingerprint(dataset: Any) -> Optional[str]:
    """Sixteen digits for the names and annotations of all images of ``dataset``; None if it does not give them out.

    Paths count from the folder of the images, so that a data set may be moved; the content of images does not count.
    Takes some seconds for a set of the size of COCO.

    Args:
        dataset: built; wrappers are looked through. Of a very large one, images at equal distances count.
    """
    digest = hashlib.blake2b(digest_size=8)
    try:
        for leaf in _leaves(dataset):
            folders = _folders(leaf)
            for index in range(0, len(leaf), -(-len(leaf) // MOST_IMAGES) or 1):
                _add(digest.update, _without_folders(leaf.get_data_info(index), folders))
            _add(digest.update, len(leaf))
    except Exception:  # a data set of another kind than MMEngine's; nothing depends on its fingerprint
        return None
    return digest.hexdigest()


def _add(update: Callable[[Any], None], value: Any) -> None:
    """Add ``value``, of nested dicts and lists; lists of numbers, such as outlines, as a whole."""
    if isinstance(value, dict):
        for key, item in value.items():
            update(f'{key}:'.encode('utf-8', 'surrogatepass'))
            _add(update, item)
    elif isinstance(value, (list, tuple)):
        update(b'[')
        try:
            update(array('d', value))
        except TypeError:
            for item in value:
                _add(update, item)
    else:
        update(repr(value).encode('utf-8', 'surrogatepass'))


def _leaves(dataset: Any) -> Iterator[Any]:
    """The data sets inside wrappers that repeat, mix or concatenate them."""
    several = getattr(dataset, 'datasets', None)
    if isinstance(several, (list, tuple)):
        for each in several:
            yield from _leaves(each)
    elif isinstance(getattr(dataset, 'dataset', None), Sized):
        yield from _leaves(dataset.dataset)
    else:
        yield dataset


def _folders(dataset: Any) -> list[str]:
    """Where its files are, the longest path first."""
    prefixes = getattr(dataset, 'data_prefix', None)
    paths = [*(prefixes.values() if isinstance(prefixes, dict) else ()), getattr(dataset, 'data_root', None)]
    return sorted({path for path in paths if isinstance(path, str) and path}, key=len, reverse=True)


def _without_folders(info: dict, folders: list[str]) -> dict:
    """``info`` with its paths relative to the first of ``folders`` that they lie in; with the mere name if in none."""
    paths = {key: value for key, value in info.items() if key.endswith('_path') and isinstance(value, str)}
    for key, value in paths.items():
        folder = next((folder for folder in folders if value.startswith(folder)), None)
        paths[key] = Path(value).name if folder is None else value[len(folder) :].lstrip('/\\')
    return {**info, **paths}
