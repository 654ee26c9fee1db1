"""Filling a model from the tensors of another implementation, with every tensor on both sides accounted for."""

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Optional, Union

import numpy as np
import torch
from torch import Tensor, nn

from mixdet.engine.checkpoint import COUNTER
from mixdet.errors import UserError
from mixdet.layers import MixConv2d, grow

ArrayFunction = Callable[[np.ndarray], np.ndarray]
LISTED = 8  # names of each kind in an error message


class Entry(NamedTuple):
    """One tensor to fill.

    Attributes:
        target: a parameter, a buffer, or a whole MixConv2d.
        source: its name in the source; several are concatenated along the first axis.
        convert: brings a source array into PyTorch's layout; None if it is in it already.
    """

    target: Union[Tensor, MixConv2d]
    source: Union[str, tuple[str, ...]]
    convert: Optional[ArrayFunction] = None


def fill(
    model: nn.Module, entries: Iterable[Entry], source: Mapping[str, np.ndarray], allow: Sequence[str] = ()
) -> list[str]:
    """Copy ``source`` into ``model`` according to ``entries`` and return the names of the source that are left over.

    Args:
        model: network to fill, in place.
        entries: which tensor comes from where.
        source: arrays by name.
        allow: patterns (``Logits/*``) of source names that may be left over.

    Raises:
        UserError: with the name of every source tensor that is missing, of another shape, or left over without being
            allowed, and of every tensor of the model that no entry fills.
    """
    missing: list[str] = []
    misshapen: list[str] = []
    used: set[str] = set()
    filled: set[int] = set()
    with torch.no_grad():
        for entry in entries:
            target = entry.target
            tensors = [conv.weight for conv in target.convs] if isinstance(target, MixConv2d) else [target]
            filled.update(map(id, tensors))
            names = (entry.source,) if isinstance(entry.source, str) else entry.source
            absent = [name for name in names if name not in source]
            if absent:
                missing += absent
                continue
            used.update(names)
            arrays = [np.asarray(source[name]) for name in names]
            try:
                values = np.concatenate([entry.convert(array) if entry.convert else array for array in arrays])
                for tensor, part in zip(tensors, _parts(target, torch.from_numpy(values))):
                    if part.shape != tensor.shape:
                        raise ValueError(f'{tuple(part.shape)} for {tuple(tensor.shape)}')
                    tensor.copy_(part)
            except (ValueError, RuntimeError) as error:
                misshapen.append(f'{names[0]} {arrays[0].shape} ({error})')
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    saved = set(model.state_dict())
    unfilled = [n for n, t in own.items() if n in saved and id(t) not in filled and not n.endswith(COUNTER)]
    unused = [name for name in source if name not in used and not name.endswith(COUNTER)]
    refused = [name for name in unused if not any(fnmatch.fnmatch(name, pattern) for pattern in allow)]
    problems = [
        f'{len(names)} {problem}: {", ".join(names[:LISTED])}{" ..." if len(names) > LISTED else ""}'
        for names, problem in (
            (missing, 'tensors are missing in the source'),
            (misshapen, 'have another shape'),
            (refused, 'of the source are not used (allow them by name to leave them out)'),
            (unfilled, 'of the model are not filled'),
        )
        if names
    ]
    if problems:
        raise UserError('these weights do not fit the model: ' + '; '.join(problems))
    return unused


def _parts(target: Union[Tensor, MixConv2d], values: Tensor) -> list[Tensor]:
    """``values`` by the groups of a MixConv2d, with the kernels grown to the size of each group."""
    if not isinstance(target, MixConv2d):
        return [values]
    if any(conv.dilation != target.dilation for conv in target.convs):
        raise ValueError('dilated kernels cannot hold the taps of a full one')
    parts = values.split([conv.out_channels for conv in target.convs])
    return [grow(part, conv.kernel_size) for part, conv in zip(parts, target.convs)]
