"""Filling the cache of decoded images before a training, and refusing it where it would change results."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mmengine.dist import barrier, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.progress import track

from mixdet.datasets.cache import LoadCachedImage
from mixdet.datasets.wrappers import inner_datasets, transforms_of
from mixdet.errors import UserError
from mixdet.registry import HOOKS


@HOOKS.register_module()
class ImageCacheHook(Hook):
    """Decodes the images of a training into the cache of its ``LoadCachedImage`` before the first iteration.

    Each process does its share, the main one with a progress bar. Does nothing without that transform. In any config:
    ``custom_hooks = [dict(type='mixdet.ImageCacheHook')]``.
    """

    priority = 'VERY_HIGH'  # before another hook starts the workers

    def before_train(self, runner: Runner) -> None:
        """Fill the cache. Raises UserError if images are shrunk for a training that needs their own size."""
        for dataset, load in _cached(runner.train_dataloader.dataset):
            if load.shrinks and any(_needs_size(transform) for transform in transforms_of(dataset)):
                raise UserError('LoadCachedImage: min_side scales boxes, but no masks or maps; set min_side=None')
            share = range(get_rank(), len(dataset), get_world_size())
            load.fill((dataset.get_data_info(i)['img_path'] for i in share), _progress)
        barrier()

    def before_val_epoch(self, runner: Runner) -> None:
        """Raise UserError if images are shrunk for the validation, which would misplace every box."""
        _check_evaluation(runner.val_dataloader.dataset)

    def before_test_epoch(self, runner: Runner) -> None:
        """Raise UserError if images are shrunk for the test."""
        _check_evaluation(runner.test_dataloader.dataset)


def _progress(steps: Sequence) -> Iterable:
    return track(steps, 'Decoding images', disable=not is_main_process() or not steps)


def _cached(dataset: Any) -> Iterator[tuple[Any, LoadCachedImage]]:
    """The data sets inside ``dataset`` that read from a cache, each with the transform that does."""
    for inner in inner_datasets(dataset):
        for transform in transforms_of(inner):
            if isinstance(transform, LoadCachedImage) and transform.folder is not None:
                yield inner, transform


def _needs_size(transform: Any) -> bool:
    return any(getattr(transform, name, False) for name in ('with_mask', 'with_seg', 'with_keypoints'))


def _check_evaluation(dataset: Any) -> None:
    if any(load.shrinks for _, load in _cached(dataset)):
        raise UserError('LoadCachedImage: min_side is for trainings; set min_side=None in the pipeline of evaluations')
