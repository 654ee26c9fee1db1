"""mmcv's compiled operators where mmcv has none.

Defect answered: ``import mmdet.models`` needs the extension ``mmcv._ext``, which mmcv-lite, and any mmcv that was
built without torch, does not have; building it takes about 40 minutes. Can go when MMDetection imports without it.

A finder at the *end* of ``sys.meta_path`` serves ``mmcv._ext``, so a compiled one always wins and is not touched. It
has ``nms`` and ``roi_align``, which anchor-based and two-stage detectors need; any other operator raises
NotImplementedError naming itself and mmcv when it is called.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

EXTENSION = 'mmcv._ext'


class _FallbackFinder(MetaPathFinder, Loader):
    def find_spec(self, fullname, path=None, target=None):
        return ModuleSpec(fullname, self) if fullname == EXTENSION else None

    def create_module(self, spec) -> ModuleType:
        return _FallbackExtension(spec.name, 'Operators of mmcv in PyTorch (mixdet.compat.mmcv_ops).')

    def exec_module(self, module) -> None:
        from mixdet.compat import ops

        for operator in (ops.nms, ops.roi_align_forward, ops.roi_align_backward):
            setattr(module, operator.__name__, operator)


class _FallbackExtension(ModuleType):
    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*args, **kwargs):
            raise NotImplementedError(
                f"operator '{name}' needs an mmcv with compiled operators, and this one has none; "
                "pip uninstall mmcv-lite, then: pip install --no-build-isolation 'mmcv>=2.1.0,<2.2.0'"
            )

        return missing


def install() -> None:
    """Serve ``mmcv._ext`` from PyTorch wherever no compiled one is found."""
    if not any(isinstance(finder, _FallbackFinder) for finder in sys.meta_path):
        sys.meta_path.append(_FallbackFinder())


def has_compiled_ops() -> bool:
    """Whether mmcv's own compiled operators are in use."""
    import mmcv._ext

    return not isinstance(mmcv._ext, _FallbackExtension)
