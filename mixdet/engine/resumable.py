"""Can a checkpoint be resumed with this config, and what has the config changed since?

MMEngine restores the optimizer and the schedule as they were saved, so that another learning rate, or a schedule for
more epochs, would be ignored without a word.
"""

import inspect
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any, Optional

from mmengine.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler
from mmengine.runner import Runner

from mixdet.engine.checkpoint import incomplete, misfit
from mixdet.engine.class_names import class_difference, named_classes, stored_classes
from mixdet.engine.finite import nonfinite_part
from mixdet.engine.wrappers import unwrap_model
from mixdet.errors import UserError

# settings that tell the classes of optimizers apart, whose states do not fit one another
DISTINCTIVE = {'momentum', 'dampening', 'betas', 'alpha', 'rho', 'lambd', 'lr_decay', 'etas', 'line_search_fn'}
SWITCH = 'tools/train.py --new-schedule, or new_schedule=True of mixdet.CheckpointHook,'


def check_resumable(runner: Runner, checkpoint: dict, path: str, by_design: frozenset[str] = frozenset()) -> None:
    """Raise UserError unless ``checkpoint``, in ``path``, is of a run with the network and classes of ``runner``.

    ``by_design`` are the buffers that need not be finite.
    """
    cure = f'to begin a new training with its weights, set load_from={path} and do not resume'
    lack = incomplete(checkpoint)
    if lack:
        raise UserError(f'checkpoint {path} cannot be resumed: {lack}; {cure}')
    reason = misfit(checkpoint['state_dict'], unwrap_model(runner.model), exactly=True)
    if reason:
        raise UserError(f'checkpoint {path} cannot be resumed: it is of another network, {reason}; {cure}')
    place = nonfinite_part(checkpoint, by_design)
    if place:
        raise UserError(
            f'checkpoint {path} cannot be resumed: its {place} is not finite; give an earlier one, or --resume without '
            'a file, which takes the newest that is finite'
        )
    now = named_classes(getattr(runner.train_dataloader.dataset, 'metainfo', None))
    difference = class_difference(stored_classes(checkpoint), now, 'train_dataloader')
    if difference:
        raise UserError(f'checkpoint {path} cannot be resumed: {difference.text}; {cure}')
    for name, wrapper, state, _, _ in _optimizers(runner, checkpoint):
        reason = _other_optimizer(state['param_groups'], wrapper.optimizer.param_groups)
        if reason:
            raise UserError(f'checkpoint {path} cannot be resumed: it is of another {name}, {reason}; {cure}')


def _other_optimizer(before: list[dict], now: list[dict]) -> Optional[str]:
    """Why the state of an optimizer with the groups ``before`` is none of one with the groups ``now``."""
    sizes, sizes_now = ([len(group['params']) for group in groups] for groups in (before, now))
    if sizes != sizes_now:
        one, other = (f'{sum(each)} parameters in {len(each)} groups' for each in (sizes, sizes_now))
        return f'with {one}, not {other}'
    settings, settings_now = (', '.join(sorted(set(groups[0]) & DISTINCTIVE)) for groups in (before, now))
    return f'with {settings or "none"}, not with {settings_now or "none"}' if settings != settings_now else None


def settle_changes(runner: Runner, checkpoint: dict, from_config: bool, batches: int, first: int = 0) -> None:
    """Name what the config has changed in optimizer, schedule and length since ``checkpoint`` was saved.

    Args:
        runner: with the optimizers and schedulers of its config, not yet those of the checkpoint.
        checkpoint: content of the file that is being resumed.
        from_config: put the config's settings into ``checkpoint``, with the schedule where a run with this config would
            have it now. Otherwise the checkpoint's are kept, and that is said.
        batches: in an epoch.
        first: iteration with which the first epoch would have begun, if an epoch has had another number of batches.
    """
    length = _changed_length(runner, checkpoint)
    changes = list(_changes(runner, checkpoint))
    if from_config or (runner.param_schedulers and 'param_schedulers' not in checkpoint):
        _take_from_config(runner, checkpoint, batches, first)
        text = f'resuming with the settings of the config: {", ".join([*length, *changes])}'
    else:
        kept = ', '.join(changes)
        text = f"resuming with the settings of the checkpoint, not of the config: {kept}; {SWITCH} takes the config's"
        text = f'{", ".join(length)}; {text}' if length else text
    if changes or (length and from_config):
        runner.logger.warning(text)


def _changed_length(runner: Runner, checkpoint: dict) -> list[str]:
    before = checkpoint['message_hub'].get('runtime_info', {})
    key = 'max_epochs' if (runner.cfg.get('train_cfg') or {}).get('max_epochs') else 'max_iters'
    now = getattr(runner.train_loop, key)
    return [f'{key} {before[key]} -> {now}'] if before.get(key, now) != now else []


def _optimizers(runner: Runner, checkpoint: dict) -> Iterator[tuple[str, OptimWrapper, dict, list, Optional[list]]]:
    """Of each optimizer: name, wrapper, saved state, schedulers, and their saved states (None if there are none)."""
    wrapper, schedulers = runner.optim_wrapper, runner.param_schedulers or []
    states = checkpoint.get('param_schedulers')
    if isinstance(wrapper, OptimWrapperDict):
        for name, single in wrapper.items():
            if name in checkpoint['optimizer']:
                of_one = schedulers.get(name, []) if isinstance(schedulers, dict) else []
                saved = states.get(name) if isinstance(states, dict) else None
                yield f'optimizer {name}', single, checkpoint['optimizer'][name], of_one, saved
    else:
        yield 'optimizer', wrapper, checkpoint['optimizer'], schedulers, states


def _changes(runner: Runner, checkpoint: dict) -> Iterator[str]:
    """Each setting of optimizer and schedule that differs: 'optimizer.lr 0.01 -> 0.02', of the checkpoint and now."""
    found = []
    for name, wrapper, state, schedulers, saved in _optimizers(runner, checkpoint):
        for group, before in zip(wrapper.optimizer.param_groups, state['param_groups']):
            found += _differences(name, _group_settings(before), _group_settings(group))
        if saved is not None and len(saved) != len(schedulers):
            found.append(f'param_scheduler has {len(saved)} -> {len(schedulers)} parts')
            continue
        for i, (scheduler, before) in enumerate(zip(schedulers, saved or ())):
            settings = _scheduler_settings(scheduler)
            if set(settings) <= set(before):
                found += _differences(f'param_scheduler.{i}', {key: before[key] for key in settings}, settings)
            else:
                found.append(f'param_scheduler.{i} is now a {type(scheduler).__name__}')
    yield from dict.fromkeys(found)


def _differences(place: str, before: dict, now: dict) -> list[str]:
    return [
        f'{place}.{key} {_plain(before[key])} -> {_plain(value)}'
        for key, value in now.items()
        if key in before and _plain(before[key]) != _plain(value)
    ]


def _group_settings(group: dict) -> dict[str, Any]:
    """The settings of a parameter group; of what a schedule changes, the value at the start."""
    names = [key for key in group if key != 'params' and not key.startswith('initial_')]
    return {key: group.get(f'initial_{key}', group[key]) for key in names}


def _scheduler_settings(scheduler: _ParamScheduler) -> dict[str, Any]:
    """The arguments that a scheduler was built with."""
    parameters = {name for cls in type(scheduler).__mro__ for name in _parameters(cls)}
    hidden = {'optimizer', 'verbose', 'last_step', 'monitor'}
    return {key: value for key, value in vars(scheduler).items() if key in parameters - hidden}


def _parameters(cls: type) -> list[str]:
    own = vars(cls).get('__init__') if cls is not object else None
    return list(inspect.signature(own).parameters) if own else []


def _plain(value: Any) -> Any:
    if isinstance(value, Counter):  # milestones
        return sorted(value.elements())
    return value.item() if hasattr(value, 'item') else list(value) if isinstance(value, tuple) else value


def _take_from_config(runner: Runner, checkpoint: dict, batches: int, first: int) -> None:
    """Put the settings of the config's optimizers and schedulers into ``checkpoint``, which is about to be loaded."""
    epochs, iterations = checkpoint['meta']['epoch'], checkpoint['meta']['iter'] - first
    new_states: dict[str, list] = {}
    for name, wrapper, state, schedulers, saved in _optimizers(runner, checkpoint):
        replayed = [part for part in schedulers if not getattr(part, 'need_val_args', False)]
        _replay(replayed, epochs, iterations, batches)
        for group, before in zip(wrapper.optimizer.param_groups, state['param_groups']):
            before.update({key: value for key, value in group.items() if key != 'params'})
        if getattr(wrapper, 'base_param_settings', None) is not None:
            state['base_param_settings'] = wrapper.base_param_settings
        kept = saved if saved is not None and len(saved) == len(schedulers) else [None] * len(schedulers)
        states = [part.state_dict() if part in replayed or old is None else old for part, old in zip(schedulers, kept)]
        new_states[name.removeprefix('optimizer ')] = states
    if runner.param_schedulers is not None:
        several = isinstance(runner.optim_wrapper, OptimWrapperDict)
        checkpoint['param_schedulers'] = new_states if several else new_states['optimizer']


def _replay(schedulers: list[_ParamScheduler], epochs: int, iterations: int, batches: int) -> None:
    """Step new ``schedulers`` as a training does in ``iterations``, with an epoch's end after every ``batches``."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # no optimizer takes a step here
        ended = 0
        for done in range(1, iterations + 1):
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
            if done % batches == 0 and ended < epochs:
                ended += 1
                for scheduler in schedulers:
                    if scheduler.by_epoch:
                        scheduler.step()
