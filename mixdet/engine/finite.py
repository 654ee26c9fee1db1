"""Are tensors finite? Asked before each step and each save, so that it must cost next to nothing."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional

import torch
from torch import Tensor, nn

from mixdet.engine.checkpoint import STATE

WEIGHTS = ('state_dict', 'ema_state_dict')  # of a checkpoint: weights, statistics of batch-norms, averaged weights


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no value of ``tensors`` is infinite or NaN.

    One pass over the memory: a sum with such a value in it is not finite. Only where finite values are so large that
    their sum is not, each of them is looked at.
    """
    if not tensors:
        return True
    device = tensors[0].device
    total = torch.stack([tensor.detach().sum().to(device, torch.float32) for tensor in tensors]).sum()
    return math.isfinite(total.item()) or all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def nonfinite_part(checkpoint: Mapping[str, Any], by_design: frozenset[str] = frozenset()) -> Optional[str]:
    """The place in ``checkpoint`` of a tensor with which no training can go on; None if there is none.

    That is a weight, statistic or averaged weight that is not finite, a NaN in the optimizer's state (which may hold
    infinity: that parameter stands still), or an accumulated gradient that is not finite, unless a loss scaler, whose
    gradients overflow in normal operation, would skip it.

    Args:
        checkpoint: as MMEngine saves it, on the CPU.
        by_design: names of the buffers that are not finite in a new model, see ``nonfinite_buffers``.
    """
    for part in WEIGHTS:
        for name, tensor in _tensors(checkpoint.get(part), ''):
            if name.removeprefix('module.') not in by_design and not all_finite([tensor]):
                return f'{part}.{name}'
    optimizer = checkpoint.get('optimizer')
    for name, tensor in _tensors(optimizer, ''):
        if not all_finite([tensor]) and tensor.isnan().any():
            return f'optimizer.{name}'
    if not _is_scaled(optimizer):
        for process in (checkpoint.get(STATE) or {}).get('processes', ()):
            for name, tensor in _tensors(process.get('gradients'), ''):
                if not all_finite([tensor]):
                    return f'gradient.{name}'
    return None


def nonfinite_buffers(model: nn.Module) -> frozenset[str]:
    """Names of the buffers of a new ``model`` that hold infinity or NaN by design, such as a mask."""
    return frozenset(
        name for name, buffer in model.named_buffers() if buffer.is_floating_point() and not all_finite([buffer])
    )


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of floating point numbers in nested dicts and lists, with its place."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.element_size() > 1:  # 8 bits: there is no arithmetic for them
            yield name, value
    elif isinstance(value, (Mapping, list, tuple)):
        items: Iterable = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _tensors(item, f'{name}.{key}' if name else str(key))


def _is_scaled(optimizer: Any) -> bool:
    """Whether the state of an optimizer, or of one of several, has that of a loss scaler beside it."""
    states = [optimizer, *optimizer.values()] if isinstance(optimizer, Mapping) else []
    return any(isinstance(state, Mapping) and 'loss_scaler' in state for state in states)
