"""Training data that depend on the run's seed alone, not on what was loaded before.

MMEngine seeds a worker once, when it starts. The state of its generators then depends on how many samples it has
loaded, so a resumed run sees other augmentations than an uninterrupted one. Here every sample has a seed of its own,
made of the run's seed, the process, the epoch, the batch and the place in the batch. No state of a worker has to be
saved, and the number of workers makes no difference.
"""

import functools
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

import torch
from mmengine.dist import get_rank
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from mixdet.compat.workers import die_of_unsent_batches, report_deaths_to_the_loader_alone
from mixdet.engine.loading import explained_batches, unreadable_image
from mixdet.engine.randomness import seeded
from mixdet.errors import UserError

# transforms that keep images or sizes of earlier iterations, which no checkpoint holds
STATEFUL = {'CachedMosaic', 'CachedMixUp', 'BatchSyncRandomResize'}


class SeededIndex(NamedTuple):
    """Index of a sample in the data set, and the key that seeds its augmentation."""

    index: Any
    key: tuple[int, ...]


class SeededDataset(Dataset):
    """``dataset``, indexed by ``SeededIndex``; other attributes are read from and written to ``dataset``."""

    def __init__(self, dataset: Dataset) -> None:
        self.__dict__['dataset'] = dataset

    def __getitem__(self, item: Any) -> Any:
        if not isinstance(item, SeededIndex):
            return self.dataset[item]
        try:
            with seeded(*item.key):
                return self.dataset[item.index]
        except Exception as error:
            unreadable = unreadable_image(error)
            if unreadable is None:
                raise
            raise UserError(unreadable) from error

    def __len__(self) -> int:
        return len(self.dataset)

    def __deepcopy__(self, memo: dict) -> 'SeededDataset':
        return self  # MMEngine copies a loader's config before it builds it; the data need no copy

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or 'dataset' not in self.__dict__:  # the latter during unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)


class SeededBatchSampler(Sampler[list[SeededIndex]]):
    """The batches of ``batch_sampler`` as lists of ``SeededIndex``; can begin within an epoch without loading anything.

    Args:
        batch_sampler: sampler of batches, like torch's ``BatchSampler``; what it draws from the global generators is
            seeded as well.
        key: numbers that seed this loader: the run's seed, the process.
        endless: continue with the next epoch when one ends, for iteration-based loops.
    """

    def __init__(self, batch_sampler: Any, key: tuple[int, ...], endless: bool) -> None:
        self.batch_sampler = batch_sampler
        self.key = key
        self.endless = endless
        self.epoch = 0
        self.skip = 0  # batches to leave out at the start of the next epoch

    @property
    def sampler(self) -> Any:
        """The sampler of single samples: ``DistSamplerSeedHook`` sets its epoch."""
        return self.batch_sampler.sampler

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        epoch, skip, self.skip = self.epoch, self.skip, 0
        while True:
            number = -1
            for number, batch in enumerate(self._batches(epoch)):
                if skip:
                    skip -= 1
                else:
                    yield [SeededIndex(index, (*self.key, epoch, number, place)) for place, index in enumerate(batch)]
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


class SeededLoader(DataLoader):
    """A loader like ``loader`` whose samples depend on ``key`` and their place alone, see ``SeededBatchSampler``.

    Starting an epoch draws nothing from the global generators.
    """

    batch_sampler: SeededBatchSampler

    def __init__(self, loader: DataLoader, key: tuple[int, ...], endless: bool = False) -> None:
        super().__init__(
            loader.dataset if isinstance(loader.dataset, SeededDataset) else SeededDataset(loader.dataset),
            batch_sampler=SeededBatchSampler(loader.batch_sampler, key, endless),
            generator=torch.Generator().manual_seed(0),
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=functools.partial(_start_worker, loader.worker_init_fn),
            multiprocessing_context=loader.multiprocessing_context,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
            pin_memory_device=loader.pin_memory_device,
        )

    def __iter__(self) -> Iterator:  # type: ignore[override]  # a generator is all that loops use
        return explained_batches(super().__iter__())


def _start_worker(init: Optional[Callable[[int], None]], worker: int) -> None:
    """Leave signals to the main process, which needs its workers to finish an iteration; then call ``init``."""
    die_of_unsent_batches()
    for name in ('SIGINT', 'SIGHUP', 'SIGUSR1'):  # Windows lacks two
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_sigterm_of_parent, daemon=True).start()
    if init is not None:
        init(worker)


def _exit_on_sigterm_of_parent() -> None:
    """End this process on SIGTERM from its parent, as a loader ends workers that hang; ignore it from others."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class EndlessBatches:
    """Iterator over the batches of an endless loader, for an iteration-based loop.

    Args:
        loader: an ``endless`` one.
        done: iterations done in an earlier run, after which the loader begins.
        dropped: batches that MMEngine's loop takes first and drops; each of them is None.
    """

    def __init__(self, loader: SeededLoader, done: int, dropped: int) -> None:
        self.pending = dropped
        loader.batch_sampler.skip = done
        self._iterator = iter(loader)

    def __iter__(self) -> 'EndlessBatches':
        return self

    def __next__(self) -> Any:
        if self.pending:
            self.pending -= 1
            return None
        return next(self._iterator)

    def skip_iter(self, iterations: int) -> None:
        """Called by onedl-mmengine's loop to skip the iterations of an earlier run, which are left out already."""
        self.pending -= iterations


def seed_loaders(runner: Runner) -> None:
    """Rebuild the data loaders of training and validation so that a sample depends on the seed and its place alone.

    The data sets are not built again. A loop or data set for which this is not possible is left as it is, with a
    warning.
    """
    loop, key = runner.train_loop, (runner.seed, get_rank())
    report_deaths_to_the_loader_alone()
    if not isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
        return runner.logger.warning(f'{type(loop).__name__}: a resumed run will not see the same data')
    if not _is_indexed(loop.dataloader):
        return runner.logger.warning('iterable data set or no batch sampler: a resumed run will not see the same data')
    endless = isinstance(loop, IterBasedTrainLoop)
    loop.dataloader = SeededLoader(_fresh_loader(runner, 'train_dataloader', loop.dataloader), key, endless)
    if endless:
        # onedl-mmengine's loop has a setting with which it skips nothing when it resumes
        dropped = 0 if getattr(loop, 'fast_forward_on_resume', False) else loop.iter
        loop.dataloader_iterator = EndlessBatches(loop.dataloader, loop.iter, dropped)
    if runner.val_loop is not None and _is_indexed(runner.val_dataloader):
        runner.val_loop.dataloader = SeededLoader(runner.val_dataloader, key)
    config = str([runner.cfg.get('train_dataloader'), runner.cfg.get('model')])
    stateful = sorted(name for name in STATEFUL if f"'{name}'" in config)
    if stateful:
        runner.logger.warning(f'{", ".join(stateful)} keep a state of their own: a resumed run is not exact')


def _is_indexed(loader: DataLoader) -> bool:
    """Whether its samples have an index and a place in a batch."""
    return not isinstance(loader.dataset, IterableDataset) and loader.batch_sampler is not None


def _fresh_loader(runner: Runner, name: str, loader: DataLoader) -> DataLoader:
    """``loader`` built again from its config: its sampler may have been used already, or have another run's seed."""
    cfg = runner.cfg.get(name)
    if not isinstance(cfg, dict):
        return loader  # the user made it
    cfg = {
        key: value for key, value in cfg.items() if key != 'num_batch_per_epoch'
    }  # the data set is shortened already
    with seeded(runner.seed):
        fresh = runner.build_dataloader(
            dict(cfg, dataset=SeededDataset(loader.dataset)),
            seed=runner.seed,
            diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False),
        )
    if getattr(loader.batch_sampler, 'drop_last', False):  # which the runner may have set, see engine.batch_norm
        fresh.batch_sampler.drop_last = True
    return fresh


def seed_epoch(runner: Runner) -> None:
    """Tell the training's loader the number of the coming epoch, in an epoch-based loop."""
    loader = runner.train_dataloader
    if isinstance(loader, SeededLoader) and isinstance(runner.train_loop, EpochBasedTrainLoop):
        loader.batch_sampler.epoch = runner.epoch
