"""Does the schedule of the learning rate fit the length of the training?

A schedule states epochs or iterations of its own (``end``, ``T_max``, ``milestones``), which a change of
``train_cfg.max_epochs`` or ``max_iters`` alone does not move.
"""

from collections.abc import Iterator
from typing import Any, Optional

from mmengine.config import Config

LENGTHS = ('max_epochs', 'max_iters')  # of train_cfg
SPANS = ('T_max', 'total_iters', 'total_steps')  # lengths of a scheduler's own, from its begin
WARM_UPS = ('LinearLR', 'ConstantLR', 'LinearParamScheduler', 'ConstantParamScheduler')


def fit_schedule(cfg: Config, before: int) -> list[str]:
    """Move the schedule of ``cfg`` to the length of its ``train_cfg`` if it fits a training of length ``before``.

    All steps of the schedule keep their place in proportion (8 of 12 epochs become 16 of 24), except the end of a
    warm-up, which stays where it is unless the training ends before. Schedulers that count in the other unit, such as a
    warm-up in iterations, are not changed.

    Returns:
        The changes, such as 'param_scheduler.1.T_max 120 -> 50'.
    """
    length = _length(cfg)
    if length is None:
        return []
    key, after = length
    parts = [(place, part) for place, part in _schedulers(cfg) if part.get('by_epoch', True) == (key == 'max_epochs')]
    steps = [step for _, part in parts for _, step in _steps(part)]
    if not steps or max(steps) > before or max(_ends(part, before) for _, part in parts) != before:
        return []
    warm_ups = {part['end'] for _, part in parts if _is_warm_up(part, before)}

    def moved(step: int) -> int:
        return step if step in warm_ups and step < after else max(round(step * after / before), min(step, 1))

    changes = []
    for place, part in parts:
        old = {name: part[name] for name in ('begin', 'end', *SPANS, 'milestones') if part.get(name) is not None}
        begin, begin_before = moved(part.get('begin', 0)), part.get('begin', 0)
        new: dict[str, Any] = {}
        for name, value in old.items():
            if name == 'begin':
                new[name] = begin
            elif name == 'end':
                new[name] = max(moved(value), begin + 1)
            elif name == 'milestones':
                new[name] = [begin + moved(step + begin_before) - moved(begin_before) for step in value]
            else:
                new[name] = max(moved(begin_before + value) - begin, 1)
        changes += [f'{place}.{name} {old[name]} -> {new[name]}' for name in old if new[name] != old[name]]
        part.update(new)
    return changes


def misfits(cfg: Config, iterations: Optional[int] = None) -> list[str]:
    """What in schedule and hooks of ``cfg`` lies after the end of its training: 'param_scheduler.1.T_max=120', ..."""
    length = _length(cfg)
    if length is None:
        return []
    key, total = length
    found = []
    for place, part in _schedulers(cfg):
        last = total if part.get('by_epoch', True) == (key == 'max_epochs') else iterations
        if last is not None and (key == 'max_epochs' or not part.get('by_epoch', True)):
            found += [f'{place}.{name}' for name, step in _steps(part) if step > last - (name == 'milestones')]
    if key == 'max_epochs':
        for name in ('custom_hooks', 'default_hooks'):
            hooks = cfg.get(name) or {}
            for hook, part in hooks.items() if isinstance(hooks, dict) else enumerate(hooks):
                steps = part.items() if isinstance(part, dict) else ()
                found += [
                    f'{name}.{hook}.{k}' for k, v in steps if k.endswith('_epoch') and type(v) is int and v > total
                ]
    return [f'{place}={_value(cfg, place)}' for place in dict.fromkeys(found)]


def _length(cfg: Config) -> Optional[tuple[str, int]]:
    loop = cfg.get('train_cfg') or {}
    return next(((key, loop[key]) for key in LENGTHS if isinstance(loop.get(key), int)), None)


def _schedulers(cfg: Config) -> Iterator[tuple[str, dict]]:
    """Each scheduler's config with its place."""
    node = cfg.get('param_scheduler')
    if isinstance(node, dict):
        if 'type' in node:
            yield 'param_scheduler', node
            return
        for name, parts in node.items():  # of several optimizers
            for i, part in enumerate(parts if isinstance(parts, (list, tuple)) else [parts]):
                if isinstance(part, dict):
                    yield f'param_scheduler.{name}.{i}', part
    for i, part in enumerate(node if isinstance(node, (list, tuple)) else ()):
        if isinstance(part, dict):
            yield f'param_scheduler.{i}', part


def _steps(part: dict) -> Iterator[tuple[str, int]]:
    """The steps that a scheduler states, counted from the start of the training, each with the key that states it."""
    begin = part.get('begin', 0)
    for name in ('end', *SPANS, 'milestones'):
        value = part.get(name)
        for step in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(step, int) and step < 10**9:  # MMEngine's infinity
                yield name, step if name == 'end' else begin + step


def _ends(part: dict, total: int) -> int:
    """Where a scheduler ends; MMEngine's default is the end of the training."""
    end = part.get('end')
    return max((step for _, step in _steps(part)), default=total) if end is not None else total


def _is_warm_up(part: dict, total: int) -> bool:
    name = part['type'] if isinstance(part.get('type'), str) else getattr(part.get('type'), '__name__', '')
    name = name.rpartition('.')[2]
    return part.get('begin', 0) == 0 and part.get('end', total) < total and (name in WARM_UPS or 'Warmup' in name)


def _value(cfg: Any, place: str) -> Any:
    for part in place.split('.'):
        cfg = cfg[int(part)] if isinstance(cfg, (list, tuple)) else cfg[part]
    return cfg
