"""A substitute for mmcv's compiled operators.

Defect answered: ``import mmdet.models`` needs the extension ``mmcv._ext``, which mmcv-lite, and any mmcv that was
built without torch, does not have; building it takes about 40 minutes. Can go when MMDetection imports without it.

A finder at the *end* of ``sys.meta_path`` provides ``mmcv._ext``, so a compiled extension takes precedence. The
substitute has ``nms`` and ``roi_align``, which anchor-based and two-stage detectors need; any other operator raises
NotImplementedError, with its name and the remedy, when it is called.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Callable, NoReturn, Optional

EXTENSION = 'mmcv._ext'


class _FallbackFinder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:
        return ModuleSpec(fullname, self) if fullname == EXTENSION else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _FallbackExtension(spec.name, 'Operators of mmcv in PyTorch (mixdet.compat.mmcv_ops).')

    def exec_module(self, module: ModuleType) -> None:
        from mixdet.compat import ops

        for operator in (ops.nms, ops.roi_align_forward, ops.roi_align_backward):
            setattr(module, operator.__name__, operator)


class _FallbackExtension(ModuleType):
    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> NoReturn:
            raise NotImplementedError(
                f"operator '{name}' needs an mmcv with compiled operators, which this one lacks; "
                "pip uninstall mmcv-lite, then: pip install --no-build-isolation 'mmcv>=2.1.0,<2.2.0'"
            )

        return missing


def install() -> None:
    """Provide ``mmcv._ext`` in PyTorch unless a compiled one is found."""
    if not any(isinstance(finder, _FallbackFinder) for finder in sys.meta_path):
        sys.meta_path.append(_FallbackFinder())


def has_compiled_ops() -> bool:
    """Whether mmcv's own compiled operators are in use."""
    import mmcv._ext

    return not isinstance(mmcv._ext, _FallbackExtension)
