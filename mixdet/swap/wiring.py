"""The parts of a detector that depend on the channels of its backbone, and new channels for them."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from mixdet.errors import UserError, first_line
from mixdet.registry import MODELS
from mixdet.swap.outputs import BackboneOutputs


def type_name(type_: Any) -> str:
    """The name of a config's ``type``, which is a name or a class."""
    return type_ if isinstance(type_, str) else type_.__name__


def walk(node: Any, path: str = '') -> Iterator[tuple[str, dict]]:
    """All dicts in ``node`` with their dotted paths, except backbones."""
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            if not str(key).endswith('backbone'):
                yield from walk(value, f'{path}.{key}' if path else str(key))
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from walk(value, f'{path}.{i}')


def first_neck(detector: dict) -> Optional[dict]:
    """The config of the neck that takes the backbone's outputs, if it states its ``in_channels``."""
    neck = detector.get('neck')
    neck = neck[0] if isinstance(neck, (list, tuple)) else neck
    return neck if neck and 'in_channels' in neck else None


def rewire(detector: dict, old: BackboneOutputs, new: BackboneOutputs) -> list[str]:
    """Replace the old channels by the new ones wherever ``detector`` states them, in place; returns the changes.

    Raises:
        UserError: if nothing states the old channels, or the neck cannot be built for the new ones.
    """
    neck = first_neck(detector)
    if neck is None:
        changes = _rewire_lists(detector, old, new) if len(old.channels) > 1 else []
        changes += _rewire_numbers(detector, old, new)
    elif isinstance(neck['in_channels'], int):
        matches = neck['in_channels'] == old.channels[-1]
        changes = [_put(neck, 'neck', 'in_channels', new.channels[-1])] if matches else []
    elif len(old.channels) > 1:
        changes = _rewire_lists(detector, old, new)
    else:
        matches = tuple(neck['in_channels']) == old.channels
        changes = [_put(neck, 'neck', 'in_channels', [*new.channels])] if matches else []
    if not changes:
        where = f'neck.in_channels={neck["in_channels"]} is' if neck else 'no in_channels of neck or heads is'
        raise UserError(f'cannot be wired: the old backbone has {old.channels} channels, but {where} made for that')
    if neck is not None:
        _check_neck(neck, new)
    return changes


def _rewire_lists(detector: dict, old: BackboneOutputs, new: BackboneOutputs) -> list[str]:
    """Lists of channels that begin with the old ones, or are the old ones in reverse."""
    changes = []
    for path, part in walk(detector):
        channels = part.get('in_channels')
        if not isinstance(channels, Sequence):
            continue
        if _begins_with(channels, old.channels):
            changes.append(_put(part, path, 'in_channels', [*new.channels, *channels[len(old.channels) :]]))
            passed = part.get('out_channels', ())
            if _begins_with(passed, old.channels):  # SSD's neck passes on its inputs and adds levels
                changes.append(_put(part, path, 'out_channels', [*new.channels, *passed[len(old.channels) :]]))
        elif tuple(channels) == old.channels[::-1]:  # YOLOv3's neck begins at the deepest level
            changes.append(_put(part, path, 'in_channels', [*new.channels[::-1]]))
    return changes


def _rewire_numbers(detector: dict, old: BackboneOutputs, new: BackboneOutputs) -> list[str]:
    """Heads without a neck, which take the deepest output."""
    return [
        _put(part, path, key, new.channels[-1])
        for path, part in walk(detector)
        for key in (('in_channels', 'out_channels') if path.endswith('roi_extractor') else ('in_channels',))
        if part.get(key) == old.channels[-1]
    ]


def _check_neck(neck: dict, new: BackboneOutputs) -> None:
    try:
        MODELS.build(copy.deepcopy(dict(neck)))
    except Exception as error:  # upstream can raise anything
        kind = type_name(neck['type'])
        raise UserError(f'cannot be wired: neck {kind} does not take {new.channels}: {first_line(error)}') from error


def _put(part: dict, path: str, key: str, value: Any) -> str:
    change = f'{path}.{key}: {part[key]} -> {value}'
    part[key] = value
    return change


def _begins_with(value: Any, channels: tuple[int, ...]) -> bool:
    return isinstance(value, Sequence) and tuple(value[: len(channels)]) == channels
