"""Training loops that begin within an epoch, or with another number of batches in one.

Defect answered: mmengine 0.10.7 restarts the epoch from its first batch when it resumes from a checkpoint that was
saved within an epoch, so that some batches are trained twice. Can go when ``EpochBasedTrainLoop`` takes a first batch.

Defect answered: resumed with another number of batches in an epoch, its ``max_iters`` is not where the training ends,
so that it is seen as finished too early or never, and the accumulation of gradients fails. Can go when
``EpochBasedTrainLoop`` counts ``max_iters`` from where it resumes.
"""

from mmengine.runner import BaseLoop, EpochBasedTrainLoop


def begin_within_epoch(loop: BaseLoop, batch: int) -> None:
    """Number the batches of the next epoch of ``loop`` from ``batch`` on; the loader must skip those before."""
    run_iter = loop.run_iter
    loop.run_iter = lambda idx, data_batch: run_iter(idx + batch, data_batch)


def begin_at_epoch_start(loop: BaseLoop) -> None:
    """Undo ``begin_within_epoch`` if it was called."""
    vars(loop).pop('run_iter', None)


def count_iterations_from(loop: EpochBasedTrainLoop, first: int) -> None:
    """Have the first epoch of ``loop`` begin with iteration ``first``, which can be negative.

    After another batch size the iterations that are done are not the epochs that are done times the batches of one. The
    total that is left unchanged would be reached too early or never.
    """
    loop._max_iters = first + loop.max_epochs * len(loop.dataloader)


def first_iteration(loop: EpochBasedTrainLoop) -> int:
    """What ``count_iterations_from`` was told; 0 if it was not called."""
    return loop.max_iters - loop.max_epochs * len(loop.dataloader)
