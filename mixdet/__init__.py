"""mixdet: MixConv and MixNet (Tan & Le, BMVC 2019) as a plug-in for MMDetection 3.x.

Importing the package checks the installed OpenMMLab stack, puts the compatibility shims of :mod:`mixdet.compat` in
place and creates the registries. The registered classes are imported on first use: ``type='mixdet.MixNet'`` works in
any MMDetection config.
"""

from typing import Any

from mixdet import compat
from mixdet.version import __version__

compat.check_stack()
compat.install()  # before anything imports mmcv or mmdet

from mixdet import registry  # noqa: E402

__all__ = ['Detection', 'Detector', '__version__', 'compat', 'registry']


def __dir__() -> list[str]:
    """The names of the package, also those that ``__getattr__`` imports."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """``Detector`` and ``Detection``, imported on first use because they import MMDetection."""
    if name in ('Detector', 'Detection'):
        from mixdet import deploy

        return getattr(deploy, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
