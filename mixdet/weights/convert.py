"""Filling a model from somebody else's tensors, with every tensor on both sides accounted for."""

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Optional, Union

import numpy as np
import torch
from torch import Tensor, nn

from mixdet.engine.checkpoint import COUNTER
from mixdet.errors import UserError
from mixdet.layers import MixConv2d, grow


class Entry(NamedTuple):
    """One tensor to fill: ``target`` (a parameter, a buffer, or a whole MixConv2d) from ``source``, by its name there.

    Several sources are joined along the first axis. ``convert`` brings a source array into PyTorch's layout.
    """

    target: Union[Tensor, MixConv2d]
    source: Union[str, tuple[str, ...]]
    convert: Optional[Callable[[np.ndarray], np.ndarray]] = None


def fill(
    model: nn.Module, entries: Iterable[Entry], source: Mapping[str, np.ndarray], allow: Sequence[str] = ()
) -> list[str]:
    """Copy ``source`` into ``model`` as ``entries`` say, and return the names of the source that were left out.

    Args:
        model: network to fill, in place.
        entries: which tensor comes from where.
        source: arrays by name.
        allow: patterns (``Logits/*``) of source names that may stay unused.

    Raises:
        UserError: naming every source tensor that is missing, misshapen or unused and not allowed, and every tensor of
            the model that no entry fills.
    """
    missing, misshapen, used, filled = [], [], set(), set()
    with torch.no_grad():
        for entry in entries:
            mixed = isinstance(entry.target, MixConv2d)
            targets = [conv.weight for conv in entry.target.convs] if mixed else [entry.target]
            filled.update(map(id, targets))
            names = (entry.source,) if isinstance(entry.source, str) else entry.source
            absent = [name for name in names if name not in source]
            if absent:
                missing += absent
                continue
            used.update(names)
            arrays = [np.asarray(source[name]) for name in names]
            try:
                values = np.concatenate([entry.convert(array) if entry.convert else array for array in arrays])
                for target, part in zip(targets, _parts(entry.target, torch.from_numpy(values))):
                    if part.shape != target.shape:
                        raise ValueError(f'{tuple(part.shape)} for {tuple(target.shape)}')
                    target.copy_(part)
            except (ValueError, RuntimeError) as error:
                misshapen.append(f'{names[0]} {arrays[0].shape} ({error})')
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = set(model.state_dict())
    unfilled = [n for n, t in state.items() if n in kept and id(t) not in filled and not n.endswith(COUNTER)]
    unused = [name for name in source if name not in used and not name.endswith(COUNTER)]
    refused = [name for name in unused if not any(fnmatch.fnmatch(name, pattern) for pattern in allow)]
    faults = [
        f'{len(names)} {what}: {", ".join(names[:8])}{" ..." if len(names) > 8 else ""}'
        for names, what in (
            (missing, 'tensors are missing in the source'),
            (misshapen, 'have another shape'),
            (refused, 'of the source are not used (allow them by name to leave them out)'),
            (unfilled, 'of the model are not filled'),
        )
        if names
    ]
    if faults:
        raise UserError('these weights are not of this model: ' + '; '.join(faults))
    return unused


def _parts(target: Union[Tensor, MixConv2d], values: Tensor) -> list[Tensor]:
    """The weights of each group: its channels, with the kernel grown to the group's size."""
    if not isinstance(target, MixConv2d):
        return [values]
    if target.dilated and any(conv.dilation != target.dilation for conv in target.convs):
        raise ValueError('dilated kernels cannot hold the taps of a full one')
    sizes = [conv.out_channels for conv in target.convs]
    return [grow(part, conv.kernel_size) for part, conv in zip(values.split(sizes), target.convs)]
