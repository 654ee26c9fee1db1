"""Training loops that begin within an epoch.

Defect answered: mmengine 0.10.7 restarts the epoch from its first batch when it resumes from a checkpoint that was
saved within an epoch, so that some batches are trained twice. Can go when ``EpochBasedTrainLoop`` takes a first batch.
"""

from mmengine.runner import BaseLoop


def begin_within_epoch(loop: BaseLoop, batch: int) -> None:
    """Number the batches of the next epoch of ``loop`` from ``batch`` on; the loader must skip those before."""
    run_iter = loop.run_iter
    loop.run_iter = lambda idx, data_batch: run_iter(idx + batch, data_batch)


def begin_at_epoch_start(loop: BaseLoop) -> None:
    """Undo ``begin_within_epoch`` if it was called."""
    vars(loop).pop('run_iter', None)
