"""Exact resume: the state of a run that MMEngine does not save, and data that depend on the seed alone."""

import contextlib
from collections.abc import Iterator
from typing import Optional, TypedDict

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner

from mixdet.compat.loops import begin_at_epoch_start, begin_within_epoch
from mixdet.engine.randomness import rng_state, set_rng_state
from mixdet.engine.resumable import check_resumable, settle_changes
from mixdet.engine.seeded_data import SeededLoader, seed_epoch, seed_loaders
from mixdet.engine.wrappers import unwrap_model

STATE = 'mixdet_state'  # key in a checkpoint


class ProcessState(TypedDict):
    """What each process saves."""

    rng: dict  # see rng_state
    gradients: dict[str, torch.Tensor]  # accumulated so far, by parameter


class RunState(TypedDict):
    """What a checkpoint holds beside MMEngine's content."""

    validated: bool  # whether the validation due at this point is done
    batches: int  # in an epoch
    processes: list[ProcessState]


class ExactResumeHook(Hook):
    """Has a resumed run continue exactly as if it had never stopped, also from within an epoch.

    Batches, augmentation, generators, accumulated gradients and a due validation are those of an uninterrupted run.
    ``mixdet.CheckpointHook`` adds this hook to its runner.

    Args:
        new_schedule: take the settings of optimizer and schedule from the config, not from the checkpoint.
    """

    priority = 'VERY_LOW'

    def __init__(self, new_schedule: bool = False) -> None:
        self.new_schedule = new_schedule
        self._loaded: Optional[RunState] = None  # from the checkpoint, until the training begins
        self._captured: Optional[RunState] = None  # for the checkpoint that is being saved

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the run's state until the training begins; name what the config has changed since."""
        if runner._resume:
            self._loaded = checkpoint.get(STATE)
            if '://' in str(runner._load_from):  # local files were checked before anything was begun
                check_resumable(runner, checkpoint, str(runner._load_from))
            settle_changes(runner, checkpoint, self.new_schedule, (self._loaded or {}).get('batches'))

    def before_train(self, runner: Runner) -> None:
        """Seed the data and restore the run's state."""
        seed_loaders(runner)
        if runner._resume:
            restore(runner, self._loaded)
            if is_finished(runner):
                runner.logger.warning(
                    f'the training is already finished: {_progress(runner)}; to train longer raise it and take the '
                    'schedule of the config (--new-schedule), for another training set another work_dir'
                )
        self._loaded = None

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed the epoch."""
        seed_epoch(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """The next epoch begins with its first batch."""
        begin_at_epoch_start(runner.train_loop)

    @contextlib.contextmanager
    def saving(self, runner: Runner, validated: bool, alone: bool = False) -> Iterator[None]:
        """Inside, checkpoints get the run's state. Every process must enter, since each has a part of the state.

        Args:
            runner: the runner, after an iteration, an epoch or a validation.
            validated: whether the validation due at this point is done.
            alone: without the other processes, and the state that is theirs.
        """
        self._captured = capture(runner, validated, alone)
        try:
            yield
        finally:
            self._captured = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the run's state."""
        if self._captured is not None:
            checkpoint[STATE] = self._captured


def capture(runner: Runner, validated: bool, alone: bool = False) -> RunState:
    """The state to save, see ``ExactResumeHook.saving``."""
    if alone:
        return RunState(validated=validated, batches=len(runner.train_dataloader), processes=[])
    mine = ProcessState(rng=rng_state(), gradients=_gradients(runner))
    return RunState(validated=validated, batches=len(runner.train_dataloader), processes=all_gather_object(mine))


def _gradients(runner: Runner) -> dict[str, torch.Tensor]:
    """The gradients that gradient accumulation has summed so far."""
    wrapper = runner.optim_wrapper
    if not isinstance(wrapper, OptimWrapperDict) and wrapper._accumulative_counts == 1:
        return {}  # with several optimizers the model decides when each of them takes a step
    parameters = unwrap_model(runner.model).named_parameters()
    return {name: parameter.grad.cpu() for name, parameter in parameters if parameter.grad is not None}


def restore(runner: Runner, state: Optional[RunState]) -> None:
    """Restore ``state`` of ``capture``, go to the batch where it was taken, and validate if that was due."""
    batches = len(runner.train_dataloader)
    if state is not None and state['batches'] != batches:
        runner.logger.warning(f'an epoch had {state["batches"]} batches and has {batches} now: not an exact resume')
    else:
        _go_to_batch(runner, batches)
    if state is None:
        return runner.logger.warning(
            'the checkpoint was not saved by mixdet.CheckpointHook: the training continues from it, but not exactly '
            'as if it had never stopped'
        )
    if not state['processes']:
        runner.logger.warning('one process saved this checkpoint without the others: not an exact resume')
    elif len(state['processes']) != get_world_size():
        runner.logger.warning(
            f'{len(state["processes"])} processes trained before and {get_world_size()} do now: not an exact resume'
        )
    else:
        mine = state['processes'][get_rank()]
        parameters = dict(unwrap_model(runner.model).named_parameters())
        for name, gradient in mine['gradients'].items():
            parameters[name].grad = gradient.to(parameters[name].device)
        set_rng_state(mine['rng'])
    if not state['validated'] and _validation_is_due(runner):
        runner.val_loop.run()


def _go_to_batch(runner: Runner, batches: int) -> None:
    """Begin within the epoch if the checkpoint was saved there."""
    loop = runner.train_loop
    if not isinstance(loop, EpochBasedTrainLoop) or not isinstance(loop.dataloader, SeededLoader):
        return
    first = loop.iter - loop.epoch * batches
    if 0 < first <= batches:
        loop.dataloader.batch_sampler.skip = first
        begin_within_epoch(loop, first)


def is_finished(runner: Runner) -> bool:
    """Whether the training has reached its end."""
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        return runner.epoch >= runner.max_epochs
    return runner.iter >= runner.max_iters


def _progress(runner: Runner) -> str:
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        return f'epoch {runner.epoch} is done, and train_cfg.max_epochs is {runner.max_epochs}'
    return f'iteration {runner.iter} is done, and train_cfg.max_iters is {runner.max_iters}'


def _validation_is_due(runner: Runner) -> bool:
    """Whether MMEngine's loops would validate now, after the epoch or iteration that is done."""
    loop = runner.train_loop
    if runner.val_loop is None:
        return False
    loop._decide_current_val_interval()
    done, total = loop.iter, loop.max_iters
    if isinstance(loop, EpochBasedTrainLoop):
        if loop.iter != loop.epoch * len(loop.dataloader):
            return False  # within an epoch
        done, total = loop.epoch, loop.max_epochs
    return done >= max(1, loop.val_begin) and (done % loop.val_interval == 0 or done == total)
