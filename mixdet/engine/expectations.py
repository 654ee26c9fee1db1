"""What imported weights expect of the network around them: padding, epsilon of the batch-norms, normalisation.

No tensor shows these, so weights load without an error into a network that computes something else with them.
``tools/convert_weights.py`` notes them in a checkpoint's ``meta`` as ``expects``.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional, Union

import torch
from mmengine.logging import MMLogger
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mixdet.layers import Conv2dSame, MixConv2d

KEY = 'expects'
NORMALISATION = ('mean', 'std', 'bgr_to_rgb')  # arguments of data_preprocessor


def warn_of_differences(
    checkpoint: dict, detector: nn.Module, path: Union[str, Path], module: str = '', prefix: str = ''
) -> None:
    """Log one line that names each key in which ``detector`` differs from what the weights in ``checkpoint`` expect.

    Args:
        checkpoint: with or without expectations.
        detector: the network as built.
        path: of the checkpoint, for the message.
        module: name of the part of the detector that gets the weights; '' for all of it.
        prefix: what the names of the weights begin with.
    """
    found = list(_differences(checkpoint, detector, module, prefix))
    if found:
        MMLogger.get_current_instance().warning(
            f'{path}: these weights expect '
            + ', '.join(f'{key}={expected!r} (the config has {actual!r})' for key, expected, actual in found)
            + '; set it so in the config, or they compute something else than they were trained for'
        )


def _differences(
    checkpoint: dict, detector: nn.Module, module: str, prefix: str
) -> Iterator[tuple[str, object, object]]:
    """Key in the config, expected and actual value of each difference."""
    expects = _expectations(checkpoint)
    if not expects:
        return
    weights = checkpoint.get('state_dict', checkpoint)
    names = {name.removeprefix('module.').removeprefix(prefix) for name in weights}
    seen = set()
    for name, layer in detector.get_submodule(module).named_modules():
        part = f'{module}.{name}'.lstrip('.').split('.')[0]
        for key, setting, actual in (
            (f'model.{part}.padding', 'padding', _padding(name, layer, names)),
            (f'model.{part}.norm_cfg.eps', 'eps', _eps(name, layer, names)),
        ):
            expected = expects.get(setting)
            if None not in (expected, actual) and actual != expected and key not in seen:
                seen.add(key)
                yield key, expected, actual
    preprocessor = getattr(detector, 'data_preprocessor', None)
    for name in NORMALISATION if isinstance(preprocessor, nn.Module) else ():
        wanted, found = expects.get(name), _normalisation(preprocessor, name)
        if wanted is not None and not _same(wanted, found):
            yield f'model.data_preprocessor.{name}', wanted, found


def _expectations(checkpoint: dict) -> Mapping[str, Any]:
    meta = checkpoint.get('meta')
    expects = meta.get(KEY) if isinstance(meta, Mapping) else None
    return expects if isinstance(expects, Mapping) else {}


def _padding(name: str, layer: nn.Module, names: set[str]) -> Optional[str]:
    """'same' or 'symmetric' if ``layer`` is a convolution with a stride, in which the two differ, else None."""
    if isinstance(layer, MixConv2d):
        strided = max(layer.stride) > 1 and f'{name}.convs.0.weight' in names
        return (layer.padding if layer.padding == 'same' else 'symmetric') if strided else None
    if not isinstance(layer, nn.Conv2d) or '.convs.' in name or f'{name}.weight' not in names:
        return None  # the groups of a MixConv2d are padded by it
    if max(layer.stride) == 1 or max(layer.kernel_size) == 1:
        return None
    return 'same' if isinstance(layer, Conv2dSame) else 'symmetric'


def _eps(name: str, layer: nn.Module, names: set[str]) -> Optional[float]:
    return layer.eps if isinstance(layer, _BatchNorm) and f'{name}.running_mean' in names else None


def _normalisation(preprocessor: Any, name: str) -> object:
    if name == 'bgr_to_rgb':
        return bool(getattr(preprocessor, '_channel_conversion', False))
    value = getattr(preprocessor, name, None)
    return None if value is None else [round(number, 3) for number in torch.as_tensor(value).flatten().tolist()]


def _same(expected: Any, actual: Any) -> bool:
    if isinstance(expected, bool) or actual is None:
        return expected == actual
    return len(expected) == len(actual) and all(abs(a - b) < 1e-3 for a, b in zip(expected, actual))
