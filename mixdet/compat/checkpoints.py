"""Loading checkpoints without executing code from them.

Defects answered: mmengine 0.10.7 leaves ``weights_only`` to torch, which since 2.6 refuses what MMEngine itself stores
beside the weights (``HistoryBuffer`` objects and NumPy scalars), so that ``--resume`` fails with an UnpicklingError; it
executes code in downloaded files (``load_url``); and on resume and in its inferencers it runs the config text found in
a checkpoint as Python. Can go when MMEngine registers these types, passes ``weights_only=True`` and reads no config
from a checkpoint.

Only harmless types are allowed. A HistoryBuffer pickles its own methods as ``getattr(HistoryBuffer, 'mean')``, so
``getattr`` must be resolved: to ``history_method``, which returns just those methods, never to the real one.
"""

import argparse
import functools
import importlib
import pickle
import re
from pathlib import Path, PosixPath
from typing import Any, Callable, Optional, Union

import numpy as np
import torch

from mixdet.compat.stack import is_at_least
from mixdet.errors import UserError

HISTORY_METHODS = ('min', 'max', 'mean', 'current')
# torch 2.6 is the first version that can allow a type under another name; older ones load MMEngine's files unsafely
SAFE_LOADING = is_at_least(torch.__version__, '2.6')

# what to do about a file that was refused: every tool that reads one has the option
IF_TRUSTED = 'if you trust the file, give --unsafe-load (in Python: mixdet.compat.checkpoints.trust_files())'

MapLocation = Union[str, torch.device, Callable, dict, None]  # of torch.load

_trusted = False


def trust_files() -> None:
    """From now on load any checkpoint or exported file and let code in it run: only for files that you trust."""
    global _trusted
    _trusted = True


def files_are_trusted() -> bool:
    """Whether ``trust_files`` was called."""
    return _trusted


def weights_only() -> bool:
    """The ``weights_only`` argument for ``torch.load``: False after ``trust_files`` and with a torch before 2.6."""
    return SAFE_LOADING and not _trusted


def allow(*types: type) -> None:
    """Accept objects of ``types`` in checkpoints from now on."""
    if SAFE_LOADING:
        torch.serialization.add_safe_globals(list(types))


def history_method(owner: type, name: str) -> Callable:
    """``getattr(HistoryBuffer, name)`` for the statistics MMEngine stores; ValueError for anything else."""
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in HISTORY_METHODS:
        raise ValueError(f'checkpoint asks for getattr({owner!r}, {name!r}), which is not allowed')
    return getattr(owner, name)


def load_from_local(filename: str, map_location: MapLocation = None) -> Any:
    """MMEngine's loader of local files, without executing code; config text in ``meta`` is left out."""
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'{filename} can not be found.')
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=weights_only())
    except pickle.UnpicklingError as error:
        raise UserError(f'checkpoint {filename} {refusal(error)}') from error
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)  # Runner.resume would run it, only to compare numbers of GPUs
    return checkpoint


def refusal(error: pickle.UnpicklingError) -> str:
    """What torch's refusal to load a file means, with the name of the code that it would have executed."""
    match = re.search(r'(?:GLOBAL|Unsupported class) ([\w.]+)', str(error))
    if match is None:
        return 'is corrupt or not a checkpoint; use another one'
    return f'needs {match[1]}, which is code and not weights, and was not loaded; {IF_TRUSTED}'


def install() -> None:
    """Allow the types in MMEngine's checkpoints, and load all checkpoints with ``weights_only``."""
    from mmengine.infer import BaseInferencer
    from mmengine.logging import HistoryBuffer
    from mmengine.runner import CheckpointLoader
    from mmengine.runner import checkpoint as upstream

    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    if not hasattr(BaseInferencer._init_model, '__wrapped__'):
        BaseInferencer._init_model = _with_config(BaseInferencer._init_model)
    if not SAFE_LOADING:
        return
    if not isinstance(upstream.load_url, functools.partial):
        upstream.load_url = functools.partial(_load_url, upstream.load_url)
    # NumPy 1.26 has a numpy._core too, but without these functions
    multiarray = importlib.import_module(f'numpy.{"core" if np.__version__.startswith("1.") else "_core"}.multiarray')
    scalar, reconstruct = multiarray.scalar, multiarray._reconstruct
    allowed = [HistoryBuffer, np.ndarray, np.dtype, (history_method, 'builtins.getattr')]
    # torchvision's and timm's scripts store their arguments as ``args``
    allowed += [argparse.Namespace, *((PosixPath, f'{module}.PosixPath') for module in ('pathlib', 'pathlib._local'))]
    allowed += [type(np.dtype(kind)) for kind in ('f4', 'f8', 'i8')]
    # NumPy 1 and NumPy 2 name the module differently
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed += [(scalar, f'{module}.scalar'), (reconstruct, f'{module}._reconstruct')]
    torch.serialization.add_safe_globals(allowed)


def _load_url(load_url: Callable, *args: Any, **kwargs: Any) -> Any:
    """MMEngine's loader of downloaded files, without executing code."""
    return load_url(*args, weights_only=weights_only(), **kwargs)


def _with_config(init_model: Callable) -> Callable:
    """MMEngine's ``BaseInferencer._init_model``, which runs the checkpoint's config text if no config is given."""

    @functools.wraps(init_model)
    def checked(self: Any, cfg: Any, weights: Optional[str], device: str = 'cpu') -> Any:
        if not cfg and weights_only():
            raise UserError(f'the config of {weights} would be run as Python code from the file; give a config as well')
        return init_model(self, cfg, weights, device)

    return checked
