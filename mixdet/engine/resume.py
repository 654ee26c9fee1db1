"""Exact resume: the state of a run that MMEngine does not save, and data that depend on the seed alone."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Optional, TypedDict

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner

from mixdet.compat.loops import begin_at_epoch_start, begin_within_epoch, count_iterations_from, first_iteration
from mixdet.engine.checkpoint import STATE
from mixdet.engine.fingerprint import fingerprint
from mixdet.engine.randomness import rng_state, set_rng_state
from mixdet.engine.resumable import check_resumable, settle_changes
from mixdet.engine.seeded_data import SeededLoader, seed_epoch, seed_loaders
from mixdet.engine.wrappers import unwrap_model


class ProcessState(TypedDict):
    """What each process saves."""

    rng: dict  # see rng_state
    gradients: dict[str, torch.Tensor]  # accumulated so far, by parameter


class RunState(TypedDict):
    """What a checkpoint holds beside MMEngine's content."""

    validated: bool  # whether the validation due at this point is done
    batches: int  # in an epoch
    processes: list[ProcessState]
    first: int  # iteration with which the first epoch would have begun, at this number of batches
    data: Optional[str]  # their fingerprint
    surroundings: dict[str, str]  # what sums in floating point numbers depend on


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
        self._data: Optional[str] = None  # fingerprint of the training data, in the main process

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the run's state until the training begins; name what the config has changed since."""
        if runner._resume:
            self._loaded = checkpoint.get(STATE)
            if '://' in str(runner._load_from):  # local files were checked before anything was begun
                check_resumable(runner, checkpoint, str(runner._load_from))
            first = _settle_iterations(runner, checkpoint['meta'], self._loaded)
            settle_changes(runner, checkpoint, self.new_schedule, len(runner.train_dataloader), first)

    def before_train(self, runner: Runner) -> None:
        """Seed the data and restore the run's state."""
        seed_loaders(runner)
        self._data = fingerprint(runner.train_dataloader.dataset) if is_main_process() else None
        if runner._resume:
            _warn_of_changes(runner, self._loaded or {}, self._data)
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
        self._captured = capture(runner, validated, self._data, alone)
        try:
            yield
        finally:
            self._captured = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the run's state."""
        if self._captured is not None:
            checkpoint[STATE] = self._captured


def capture(runner: Runner, validated: bool, data: Optional[str] = None, alone: bool = False) -> RunState:
    """The state to save, see ``ExactResumeHook.saving``; ``data`` is the fingerprint of the training data."""
    processes = [] if alone else all_gather_object(ProcessState(rng=rng_state(), gradients=_gradients(runner)))
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    return RunState(
        validated=validated,
        batches=len(runner.train_dataloader),
        processes=processes,
        first=first_iteration(runner.train_loop) if by_epoch else 0,
        data=data,
        surroundings=_surroundings(runner),
    )


def _surroundings(runner: Runner) -> dict[str, str]:
    on_cpu = all(parameter.device.type == 'cpu' for parameter in runner.model.parameters())
    return {'PyTorch': str(torch.__version__), **({'threads': str(torch.get_num_threads())} if on_cpu else {})}


def _settle_iterations(runner: Runner, meta: dict, state: Optional[RunState]) -> int:
    """Count the iterations of an epoch-based loop on from a checkpoint; returns where its first epoch would begin."""
    loop = runner.train_loop
    if not isinstance(loop, EpochBasedTrainLoop):
        return 0
    batches = len(loop.dataloader)
    done = meta['iter'] - meta['epoch'] * batches
    if batches == state['batches'] if state else 0 <= done <= batches:
        first = state.get('first', 0) if state else 0
    else:  # the epoch begins again, with other batches
        first = done
    count_iterations_from(loop, first)
    return first


def _warn_of_changes(runner: Runner, state: Mapping, data: Optional[str]) -> None:
    """Name what is not as it was when ``state`` was saved, of what the results depend on and no config shows."""
    if data and state.get('data') and state['data'] != data:
        runner.logger.warning(
            'the training images or their annotations are not those that were trained before: not an exact resume'
        )
    before, now = state.get('surroundings', {}), _surroundings(runner)
    changed = [f'{key} {before[key]} -> {now[key]}' for key in now if before.get(key, now[key]) != now[key]]
    if changed:
        runner.logger.warning(f'{", ".join(changed)}: not an exact resume, sums are rounded in another way')


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
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        within_epoch = by_epoch and runner.iter - state.get('first', 0) != runner.epoch * state['batches']
        runner.logger.warning(f'an epoch had {state["batches"]} batches and has {batches} now: not an exact resume')
    else:
        within_epoch = _go_to_batch(runner, batches)
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
    if not state['validated'] and not within_epoch and _validation_is_due(runner):
        runner.val_loop.run()


def _go_to_batch(runner: Runner, batches: int) -> bool:
    """Begin within the epoch if the checkpoint was saved there; returns whether it was."""
    loop = runner.train_loop
    if not isinstance(loop, EpochBasedTrainLoop):
        return False
    done = loop.iter - first_iteration(loop) - loop.epoch * batches
    if 0 < done <= batches and isinstance(loop.dataloader, SeededLoader):
        loop.dataloader.batch_sampler.skip = done
        begin_within_epoch(loop, done)
    return done != 0


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
        done, total = loop.epoch, loop.max_epochs
    return done >= max(1, loop.val_begin) and (done % loop.val_interval == 0 or done == total)
