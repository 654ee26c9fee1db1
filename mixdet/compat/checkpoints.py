"""Reading MMEngine's checkpoints with ``torch.load(weights_only=True)``.

Defect answered: since torch 2.6 that is the default, and it refuses what mmengine 0.10.7 stores beside the weights
(``HistoryBuffer`` objects and NumPy scalars), so ``--resume`` fails with an UnpicklingError. Can go when MMEngine
registers these types itself.

Only harmless types are allowed. A HistoryBuffer pickles its own methods as ``getattr(HistoryBuffer, 'mean')``, so
``getattr`` must be served; a function that gives exactly those methods stands in for it, never the real one.
"""

import numpy as np
import torch

HISTORY_METHODS = ('min', 'max', 'mean', 'current')
# torch 2.5 is the first that can allow a type under another name; before, MMEngine's files need its ordinary loading
SAFE_LOADING = tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 5)


def history_method(owner: type, name: str):
    """``getattr(HistoryBuffer, name)`` for the statistics MMEngine stores, and an error for anything else."""
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in HISTORY_METHODS:
        raise ValueError(f'checkpoint asks for getattr({owner!r}, {name!r}), which is not allowed')
    return getattr(owner, name)


def install() -> None:
    """Allow the types of MMEngine's checkpoints."""
    if not SAFE_LOADING:
        return
    from mmengine.logging import HistoryBuffer

    multiarray = (np._core if hasattr(np, '_core') else np.core).multiarray
    scalar, reconstruct = multiarray.scalar, multiarray._reconstruct
    allowed = [HistoryBuffer, np.ndarray, np.dtype, (history_method, 'builtins.getattr')]
    allowed += [type(np.dtype(kind)) for kind in ('f4', 'f8', 'i8')]
    # files from NumPy 1 and NumPy 2 name the module differently
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed += [(scalar, f'{module}.scalar'), (reconstruct, f'{module}._reconstruct')]
    torch.serialization.add_safe_globals(allowed)
