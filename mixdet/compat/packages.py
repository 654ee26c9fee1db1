"""Finding installed packages, and the configs in them.

Defects answered:
- mmengine 0.10.7 asks ``pkg_resources`` where a package is installed if a config has a base such as ``mmdet::...``.
  setuptools 82 removed that module, and of an editable install it gives a folder that does not hold the package. Can
  go when MMEngine uses ``importlib`` alone.
- mmengine takes the name before ``::`` for the scope of the types in that config. mixdet's configs are written for
  MMDetection's scope, and name mixdet's own types with their prefix. Can go when MMEngine reads ``default_scope``.
"""

import functools
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Callable, Optional


def install() -> None:
    """Replace the two functions wherever MMEngine has imported them, and enable bases such as ``mixdet::...``."""
    from mmengine.config import Config
    from mmengine.config import utils as config_utils
    from mmengine.utils import package_utils

    config_utils.MODULE2PACKAGE.setdefault('mixdet', 'mixdet')
    if not hasattr(Config._get_cfg_path, '__wrapped__'):
        Config._get_cfg_path = staticmethod(_in_mmdets_scope(Config._get_cfg_path))
    for replacement in (is_installed, get_installed_path):
        name = replacement.__name__
        original = getattr(package_utils, name)
        for module_name, module in list(sys.modules.items()):
            if module_name.startswith('mmengine') and getattr(module, name, None) is original:
                setattr(module, name, replacement)


def _in_mmdets_scope(get_cfg_path: Callable) -> Callable:
    """MMEngine's ``Config._get_cfg_path``, with the scope of MMDetection for mixdet's configs."""

    @functools.wraps(get_cfg_path)
    def path_and_scope(cfg_path: str, filename: str) -> tuple[str, Optional[str]]:
        path, scope = get_cfg_path(cfg_path, filename)
        return path, 'mmdet' if scope == 'mixdet' else scope

    return path_and_scope


def is_installed(package: str) -> bool:
    """Whether ``package`` names an installed distribution or an importable package."""
    try:
        distribution(package)
        return True
    except PackageNotFoundError:
        return _location(package) is not None


def get_installed_path(package: str) -> str:
    """Folder of the installed ``package``, the name of a distribution or of a module.

    Raises:
        PackageNotFoundError: if it is not installed.
    """
    location = _location(package)
    if location is None:
        # a distribution whose module has another name, such as mmcv-full
        names = (distribution(package).read_text('top_level.txt') or '').split()
        location = next(filter(None, map(_location, names)), None)
    if location is None:
        raise PackageNotFoundError(package)
    return str(location)


def _location(module: str) -> Optional[Path]:
    spec = find_spec(module) if module.isidentifier() else None
    return Path(spec.origin).parent if spec and spec.origin else None
