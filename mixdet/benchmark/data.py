"""What an image of a training costs the CPU, transform by transform."""

import contextlib
import io
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Optional

from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mixdet.datasets.wrappers import inner_datasets, transforms_of
from mixdet.engine.randomness import seeded
from mixdet.engine.seeded_data import SeededDataset
from mixdet.errors import UserError

REST = 'rest of the data set'  # reading an entry and copying it
WHOLE = 'all'


class TimedTransform:
    """``transform``, with the CPU time of each call added to ``spent[name]``; its other attributes are its own."""

    def __init__(self, transform: Callable, name: str, spent: dict[str, float]) -> None:
        self._transform, self._name, self._spent = transform, name, spent

    def __call__(self, results: Any) -> Any:
        """What ``transform`` returns."""
        start = time.process_time()
        try:
            return self._transform(results)
        finally:
            self._spent[self._name] += time.process_time() - start

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name == '_transform':
            raise AttributeError(name)
        return getattr(self._transform, name)


def build_train_loader(cfg: Config, dataset: Optional[Any] = None, workers: int = 0) -> DataLoader:
    """MMEngine's loader of ``cfg.train_dataloader``, without its messages.

    Args:
        cfg: the config of a training.
        dataset: in place of building the config's.
        workers: its worker processes.

    Raises:
        UserError: if the config trains nothing.
    """
    loader = cfg.get('train_dataloader')
    if not isinstance(loader, dict):
        raise UserError('the config has no train_dataloader; give the config of a training')
    loader = dict(loader, num_workers=workers, persistent_workers=False)
    if not workers:
        loader.pop('prefetch_factor', None)
    if dataset is not None:
        loader['dataset'] = SeededDataset(dataset)
        loader.pop('num_batch_per_epoch', None)  # the data set is shortened already
    with contextlib.redirect_stdout(io.StringIO()):  # CocoDataset prints its progress
        return Runner.build_dataloader(loader, seed=0)


@contextlib.contextmanager
def timed_transforms(dataset: Any) -> Iterator[dict[str, float]]:
    """Yields the CPU seconds spent in each transform of ``dataset``, and of those inside it, by name.

    A transform that stands in a pipeline twice has a number behind its name.
    """
    spent: dict[str, float] = defaultdict(float)
    pipelines = [transforms_of(inner) for inner in inner_datasets(dataset)]
    before = [list(transforms) for transforms in pipelines]
    for transforms in pipelines:
        names: Counter = Counter()
        for place, transform in enumerate(transforms):
            name = type(transform).__name__
            names[name] += 1
            label = name if names[name] == 1 else f'{name} {names[name]}'
            spent[label] += 0  # one that never runs is listed too
            transforms[place] = TimedTransform(transform, label, spent)
    try:
        yield spent
    finally:
        for transforms, originals in zip(pipelines, before):
            transforms[:] = originals


def transform_times(datasets: Mapping[str, Any], images: int = 64, rounds: int = 5) -> dict[str, dict[str, float]]:
    """CPU milliseconds per image of each transform of each data set, ``REST`` and ``WHOLE``; medians of the rounds.

    The data sets take turns round by round, in this process: image by image one would find the processor's caches full
    of another's pixels. Every round draws other augmentations, the same in each run; one more round beforehand fills
    caches.

    Args:
        datasets: what is timed, by name.
        images: evenly spread over a data set, each once in a round.
        rounds: how often.

    Raises:
        UserError: if a data set is empty.
    """
    for name, dataset in datasets.items():
        if not len(dataset):
            raise UserError(f'{name}: train_dataloader.dataset is empty; check its paths and filter_cfg')
    found: dict[str, list[dict[str, float]]] = {name: [] for name in datasets}
    for turn in range(rounds + 1):
        for name, dataset in datasets.items():
            with timed_transforms(dataset) as spent:
                for number in range(images):
                    with seeded(turn, number):
                        start = time.process_time()
                        dataset[number * len(dataset) // images]
                        spent[WHOLE] += time.process_time() - start
            if turn:
                found[name].append(spent)
    return {name: _medians(each, images) for name, each in found.items()}


def _medians(turns: list[dict[str, float]], images: int) -> dict[str, float]:
    for spent in turns:
        spent[REST] = 2 * spent[WHOLE] - sum(spent.values())
    names = [name for name in turns[0] if name not in (REST, WHOLE)]
    return {name: 1e3 * statistics.median(spent[name] for spent in turns) / images for name in [*names, REST, WHOLE]}
