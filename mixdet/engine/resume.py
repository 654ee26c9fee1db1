"""The state of a run that MMEngine does not save, and its data loaders made a function of the seed."""

from typing import Optional

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader, IterableDataset

from mixdet.compat.loops import begin_within_epoch
from mixdet.engine.models import unwrap_model
from mixdet.engine.randomness import (
    Batches,
    SeededBatchSampler,
    SeededDataset,
    rng_state,
    seeded,
    seeded_loader,
    set_rng_state,
)

# they keep images or sizes of earlier iterations, which nobody saves
STATEFUL = {'CachedMosaic', 'CachedMixUp', 'BatchSyncRandomResize'}


def seed_loaders(runner: Runner) -> None:
    """Rebuild the data loaders of training and validation so that a sample depends on the seed and its place alone.

    The data sets are not built again. What cannot be made so is left as it is, with a warning.
    """
    loop, key = runner.train_loop, (runner.seed, get_rank())
    if not isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
        return runner.logger.warning(f'{type(loop).__name__}: a resumed run will not see the same data')
    if isinstance(loop.dataloader.dataset, IterableDataset):
        return runner.logger.warning('iterable data set: a resumed run will not see the same data')
    endless = isinstance(loop, IterBasedTrainLoop)
    loop.dataloader = seeded_loader(_fresh_loader(runner, 'train_dataloader', loop.dataloader), key, endless)
    if endless:
        loop.dataloader_iterator = Batches(loop.dataloader, loop.iter)
    if runner.val_loop is not None and not isinstance(runner.val_dataloader.dataset, IterableDataset):
        runner.val_loop.dataloader = seeded_loader(runner.val_dataloader, key)
    config = str([runner.cfg.get('train_dataloader'), runner.cfg.get('model')])
    stateful = sorted(name for name in STATEFUL if f"'{name}'" in config)
    if stateful:
        runner.logger.warning(f'{", ".join(stateful)} keep a state of their own: a resumed run is not exact')


def _fresh_loader(runner: Runner, name: str, loader: DataLoader) -> DataLoader:
    """``loader`` anew from its config: a sampler may have been drawn from already, or have another run's seed."""
    cfg = runner.cfg.get(name)
    if not isinstance(cfg, dict):
        return loader  # the user made it
    cfg = {key: value for key, value in cfg.items() if key != 'num_batch_per_epoch'}  # the data set is cut already
    with seeded(runner.seed):
        return runner.build_dataloader(
            dict(cfg, dataset=SeededDataset(loader.dataset)),
            seed=runner.seed,
            diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False),
        )


def set_epoch(runner: Runner) -> None:
    """Seed the coming epoch of an epoch-based loop."""
    sampler = runner.train_dataloader.batch_sampler
    if isinstance(sampler, SeededBatchSampler) and isinstance(runner.train_loop, EpochBasedTrainLoop):
        sampler.epoch = runner.epoch


def capture(runner: Runner, validated: bool) -> dict:
    """The state to save; called in every process.

    Args:
        runner: the runner, after an iteration, an epoch or a validation.
        validated: whether the validation due at this point is done.
    """
    mine = dict(rng=rng_state(), gradients=_gradients(runner))
    return dict(validated=validated, batches=len(runner.train_dataloader), processes=all_gather_object(mine))


def _gradients(runner: Runner) -> dict:
    """What gradient accumulation has gathered so far."""
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, OptimWrapper) and wrapper._accumulative_counts == 1:
        return {}
    parameters = unwrap_model(runner.model).named_parameters()
    return {name: parameter.grad.cpu() for name, parameter in parameters if parameter.grad is not None}


def restore(runner: Runner, state: Optional[dict]) -> None:
    """Put ``state`` of ``capture`` back, go to the batch where it was taken, and validate if that was due."""
    batches = len(runner.train_dataloader)
    if state is not None and state['batches'] != batches:
        runner.logger.warning(f'an epoch had {state["batches"]} batches and has {batches} now: not an exact resume')
    else:
        _go_to_batch(runner, batches)
    if state is None:
        return runner.logger.warning(
            'the checkpoint was not saved by mixdet.CheckpointHook: the training goes on from it, but not exactly as '
            'if it had not stopped'
        )
    if len(state['processes']) != get_world_size():
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
    """Begin within the epoch if it was saved there."""
    loop = runner.train_loop
    if not isinstance(loop, EpochBasedTrainLoop) or not isinstance(loop.dataloader.batch_sampler, SeededBatchSampler):
        return
    first = loop.iter - loop.epoch * batches
    if 0 < first <= batches:
        loop.dataloader.batch_sampler.skip = first
        begin_within_epoch(loop, first)


def _validation_is_due(runner: Runner) -> bool:
    """The question that MMEngine's loops ask after an epoch or iteration."""
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
