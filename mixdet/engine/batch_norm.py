"""Batches of a single image, on which batch-norm cannot train.

With one image a feature map of 1x1 has a single value per channel, and batch-norm stops the training; on larger maps it
normalises each image by itself, which is not what it does in evaluation. An epoch ends with such a batch whenever the
number of images of a process leaves a remainder of one.
"""

import contextlib
from collections.abc import Iterator, Sized
from typing import Any, Optional

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from mixdet.errors import UserError

ONE_VALUE = 'Expected more than 1 value per channel'  # begins torch's error
# samplers that never end, so that every batch is full
ENDLESS = {'InfiniteSampler', 'MultiSourceSampler', 'GroupMultiSourceSampler'}
CURE = (
    'use batches of two or more (train_dataloader.batch_size), keep batch-norm fixed (norm_eval=True of the backbone), '
    "or normalise by groups (norm_cfg=dict(type='GN', num_groups=...))"
)


def leave_out_single_image(runner: Runner, loop: BaseLoop) -> Optional[str]:
    """Leave out a last batch of one image in each epoch of ``loop``, if the network trains batch-norm on it.

    The loader then behaves as with ``drop_last=True``, which leaves out no other batch where the remainder is one. This
    depends on the config and the data alone, so a resumed run does the same. It changes the length of an epoch: call it
    before the schedule is built from that.

    Args:
        runner: with its model.
        loop: a training loop that was just built; the ones of other packages are left alone.

    Returns:
        What the user should know of it; None if nothing is left out.
    """
    loader: Any = getattr(loop, 'dataloader', None)
    if not isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)) or not _ends_with_one(loader):
        return None
    if not trains_batch_norm(runner.model):
        return None
    images, size = len(loader.batch_sampler.sampler), loader.batch_sampler.batch_size
    where = 'in an epoch' if get_world_size() == 1 else f'for each of {get_world_size()} processes in an epoch'
    loader.batch_sampler.drop_last = True
    if isinstance(loop, EpochBasedTrainLoop):
        loop._max_iters = loop.max_epochs * len(loader)
    else:
        loop.dataloader_iterator = type(loop.dataloader_iterator)(loader)
    order = 'another one each time' if getattr(loader.batch_sampler.sampler, 'shuffle', False) else 'always the last'
    return (
        f'train_dataloader: {images} images {where} in batches of {size} would end with a batch of one, on which '
        f'batch-norm cannot train: {images - 1} are used, without {order}; another batch_size uses all'
    )


def trains_batch_norm(model: nn.Module) -> bool:
    """Whether ``model`` has a batch-norm that normalises by each batch of its own process while it trains.

    The model is left in training mode, in which backbones keep frozen batch-norms in evaluation mode.
    """
    model.train()
    return any(
        isinstance(module, _BatchNorm)
        and (module.training or not module.track_running_stats)
        and not (isinstance(module, nn.SyncBatchNorm) and get_world_size() > 1)
        for module in model.modules()
    )


def _ends_with_one(loader: Any) -> bool:
    """Whether the last of several images to a batch is alone; False where the batches are not known in advance."""
    batches = getattr(loader, 'batch_sampler', None)
    if not isinstance(loader, DataLoader) or batches is None:
        return False
    size, images = getattr(batches, 'batch_size', None), _number_of_images(batches)
    if images is None or getattr(batches, 'drop_last', None) is not False or not isinstance(size, int):
        return False
    return size > 1 and images > 1 and images % size == 1 and len(batches) == images // size + 1


class SingleImageHook(Hook):
    """Warns once, after the first iteration, that batch-norm trains on batches of a single image."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._warned = False

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Warn: an iteration that fails has its own message, see ``single_value_explained``."""
        if not self._warned and runner.rank == 0:
            self._warned = True
            runner.logger.warning(
                f'batches of one image: batch-norm normalises each image by itself, and otherwise in evaluation; {CURE}'
            )


def has_single_images(loop: BaseLoop) -> bool:
    """Whether every batch of ``loop`` is one image."""
    batches = getattr(getattr(loop, 'dataloader', None), 'batch_sampler', None)
    return 1 in (getattr(batches, 'batch_size', None), _number_of_images(batches))


def _number_of_images(batches: Any) -> Optional[int]:
    """Images of an epoch of this process; None if the sampler does not say, or never ends an epoch."""
    sampler = getattr(batches, 'sampler', None)
    endless = {base.__name__ for part in (batches, sampler) for base in type(part).__mro__} & ENDLESS
    return len(sampler) if isinstance(sampler, Sized) and not endless else None


@contextlib.contextmanager
def single_value_explained() -> Iterator[None]:
    """Raise a UserError in place of batch-norm's error about a single value per channel inside."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(ONE_VALUE):
            raise
        cause = 'batch-norm had a single value per channel, one image with a feature map of 1x1'
        raise UserError(f'{cause}; {CURE}') from error
