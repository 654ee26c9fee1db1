"""Randomness that does not depend on what ran before: of the data, and of the main process.

MMEngine seeds a worker once, when it starts. Its state then depends on how many samples it has drawn, so a resumed run
sees other augmentations than an uninterrupted one. Here every sample draws from a seed of its own, made of the run's
seed, the process, the epoch, the batch and the place in it. Nothing of a worker has to be saved, and the number of
workers changes nothing.
"""

import contextlib
import functools
import itertools
import os
import random
import signal
import threading
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info


class Draw(NamedTuple):
    """Index of a sample in the data set, and what seeds its augmentation."""

    index: Any
    key: tuple[int, ...]


def rng_state() -> dict:
    """State of Python's, NumPy's and torch's generators, of types that a safe load accepts."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    state = dict(
        python=(version, tuple(words), gauss),
        numpy=(kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict) -> None:
    """Put back what ``rng_state`` returned."""
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state['numpy']
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def seed(*key: int) -> None:
    """Seed Python's, NumPy's and torch's CPU generators from ``key`` (numbers from 0 up)."""
    first, second, third = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)
    torch.default_generator.manual_seed(third)


@contextlib.contextmanager
def seeded(*key: int) -> Iterator[None]:
    """``seed`` for what runs inside; afterwards the generators are as they were."""
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed(*key)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(pytorch)


class SeededDataset(Dataset):
    """``dataset``, indexed by ``Draw``; everything else is the data set's own, for reading and for writing."""

    def __init__(self, dataset: Dataset) -> None:
        self.__dict__['dataset'] = dataset

    def __getitem__(self, draw: Draw) -> Any:
        if not isinstance(draw, Draw):
            return self.dataset[draw]
        if get_worker_info() is not None:  # a process of its own
            seed(*draw.key)
            return self.dataset[draw.index]
        with seeded(*draw.key):
            return self.dataset[draw.index]

    def __len__(self) -> int:
        return len(self.dataset)

    def __deepcopy__(self, memo: dict) -> 'SeededDataset':
        return self  # MMEngine copies a loader's config before it builds it; not the data with it

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or 'dataset' not in self.__dict__:  # the latter while it is being unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)


class SeededBatchSampler:
    """The batches of ``batch_sampler`` as lists of ``Draw``; can begin within an epoch without loading anything.

    Args:
        batch_sampler: the sampler; what it draws from the global generators is seeded as well.
        key: numbers that seed this loader: the run's seed, the process.
        endless: go on with the next epoch when one ends, for iteration-based loops.
    """

    def __init__(self, batch_sampler, key: tuple[int, ...], endless: bool = False) -> None:
        self.batch_sampler = batch_sampler
        self.key = key
        self.endless = endless
        self.epoch = 0
        self.skip = 0  # batches left out of the next pass

    @property
    def sampler(self):
        """Of single samples: ``DistSamplerSeedHook`` sets its epoch."""
        return self.batch_sampler.sampler

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, skip, self.skip = self.epoch, self.skip, 0
        while True:
            number = -1
            for number, batch in enumerate(self._batches(epoch)):
                if skip:
                    skip -= 1
                else:
                    yield [Draw(index, (*self.key, epoch, number, place)) for place, index in enumerate(batch)]
            if not self.endless or number < 0:
                return
            epoch += 1
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(epoch)

    def _batches(self, epoch: int) -> Iterator[list]:
        batches = iter(self.batch_sampler)
        for number in itertools.count():
            with seeded(*self.key, epoch, number):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


def seeded_loader(loader: DataLoader, key: tuple[int, ...], endless: bool = False) -> DataLoader:
    """A loader like ``loader`` whose samples depend on ``key`` and their place alone, see ``SeededBatchSampler``.

    Starting a pass draws nothing from the global generators.
    """
    options = dict(
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=functools.partial(_start_worker, loader.worker_init_fn),
        multiprocessing_context=loader.multiprocessing_context,
        persistent_workers=loader.persistent_workers,
        pin_memory_device=loader.pin_memory_device,
    )
    if loader.num_workers:
        options['prefetch_factor'] = loader.prefetch_factor
    dataset = loader.dataset if isinstance(loader.dataset, SeededDataset) else SeededDataset(loader.dataset)
    return DataLoader(
        dataset,
        batch_sampler=SeededBatchSampler(loader.batch_sampler, key, endless),
        generator=torch.Generator().manual_seed(0),
        **options,
    )


def _start_worker(init: Optional[Callable[[int], None]], worker: int) -> None:
    """A signal to the process group is the main process's to answer: it needs its workers to finish an iteration."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_on_word_of_parent, daemon=True).start()
    if init is not None:
        init(worker)


def _end_on_word_of_parent() -> None:
    """End this process on SIGTERM of its parent, as a loader ends workers that hang, and on nobody else's."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class Batches:
    """Batches of an endless loader, for an iteration-based loop.

    Args:
        loader: from ``seeded_loader`` with ``endless``.
        done: iterations done in an earlier run. MMEngine's loop loads their batches and drops them; here it is given
            None for each, and the loader begins after them.
    """

    def __init__(self, loader: DataLoader, done: int) -> None:
        self.pending = done
        loader.batch_sampler.skip = done
        self._iterator = iter(loader)

    def __iter__(self) -> 'Batches':
        return self

    def __next__(self):
        if self.pending:
            self.pending -= 1
            return None
        return next(self._iterator)
