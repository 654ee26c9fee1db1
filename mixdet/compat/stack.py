"""Are Python and the packages that mixdet depends on here, in versions that fit together?

The packages are not requirements of the distribution: mmcv, mmcv-lite and onedl-mmcv all install the package ``mmcv``
(likewise mmengine and mmdet), and pip would overwrite a compiled one of the user's. So they are checked on import.
The versions here are the statement of what is supported; docs/support.md has what was tested.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Optional


class Requirement(NamedTuple):
    """Package ``name`` in a version from ``minimum`` up to, but not including, ``below``; ``pip`` installs it.

    ``distributions`` are those that install the package, and must not be installed together. ``fork`` is what to
    install instead where that fork's distribution is there already.
    """

    name: str
    minimum: str
    below: str
    pip: str
    distributions: tuple[str, ...] = ()
    fork: str = ''


PYTHON = '3.10'
TORCH = Requirement('torch', '2.1', '3', 'torch==2.13.0')
NUMPY = Requirement('numpy', '1.26', '3', 'numpy>=1.26')
NUMPY_BEFORE_TORCH_2_3 = Requirement('numpy', '1.26', '2', 'numpy>=1.26,<2')  # which was built for NumPy 1
MMENGINE_DISTRIBUTIONS = ('mmengine', 'mmengine-lite', 'onedl-mmengine')
MMENGINE = Requirement(
    'mmengine', '0.10.3', '0.11', 'mmengine==0.10.7', MMENGINE_DISTRIBUTIONS, 'onedl-mmengine==0.10.12'
)
MMDET = Requirement('mmdet', '3.3.0', '3.6', 'mmdet==3.3.0', ('mmdet', 'onedl-mmdetection'), 'onedl-mmdetection==3.5.1')
MMCV_DISTRIBUTIONS = ('mmcv', 'mmcv-lite', 'mmcv-full', 'onedl-mmcv')
# mmdet asserts the same range of mmcv when it is imported; here the message has the command that fixes it
MMCV = {
    '3.3': Requirement('mmcv', '2.0.0', '2.2.0', 'mmcv-lite==2.1.0', MMCV_DISTRIBUTIONS),
    'newer': Requirement('mmcv', '2.2.0', '2.4', 'onedl-mmcv==2.3.6', MMCV_DISTRIBUTIONS),
}


def check_stack() -> None:
    """Raise ImportError, one line with the command that fixes it, if anything is missing, too old or too new."""
    if sys.version_info < _version(PYTHON):
        raise ImportError(f'mixdet needs Python {PYTHON} or newer, and this is {sys.version.split()[0]}')
    torch = _check(TORCH)
    if is_at_least(torch, '2.3'):
        _check(NUMPY)
    else:
        _check(NUMPY_BEFORE_TORCH_2_3, f' with torch {torch}')
    _check(MMENGINE)
    mmdet = _check(MMDET)
    _check(MMCV['newer' if is_at_least(mmdet, '3.4') else '3.3'], f' with mmdet {mmdet}')
    if find_spec('pycocotools') is None:
        raise ImportError('mixdet needs pycocotools, which is not installed: pip install pycocotools')


def is_at_least(version: str, minimum: str) -> bool:
    """Whether ``version`` is ``minimum`` or newer, by their numbers: '2.10.0+cpu' is newer than '2.9'."""
    return _version(version) >= _version(minimum)


def installed_version(package: str) -> Optional[str]:
    """Version of a package, read from its ``version.py`` without importing it; None if it is not installed."""
    spec = find_spec(package)
    if spec is None or not spec.origin:
        return None
    text = (Path(spec.origin).parent / 'version.py').read_text(encoding='utf-8')
    # a literal, or the forks' look-up of their own distribution: __version__ = version('onedl-mmcv')
    match = re.search(r"^(?:__)?version(?:__)?[^=\n]*=\s*(version\()?['\"]([^'\"]+)", text, re.MULTILINE)
    if match is None:
        return None
    return version(match[2]) if match[1] else match[2]


def _version(text: str) -> tuple[int, ...]:
    """The numbers that a version begins with: '2.13.0+cpu' -> (2, 13, 0)."""
    return tuple(int(part) for part in re.findall(r'\d+', re.split(r'[^\d.]', text)[0]))


def _check(requirement: Requirement, beside: str = '') -> str:
    """The installed version. ``beside`` says what makes the requirement one."""
    found = installed_version(requirement.name)
    pip = requirement.pip
    if requirement.fork and _is_installed(requirement.fork.partition('==')[0]):
        pip = requirement.fork
    remedy = f"pip install '{pip}'"
    wanted = re.split('[=<>]', pip)[0]
    others = [name for name in requirement.distributions if name != wanted and _is_installed(name)]
    if others:  # their files would be mixed
        remedy = f'pip uninstall {" ".join(others)}, then: {remedy}'
    if found is None:
        raise ImportError(f'mixdet needs {requirement.name}, which is not installed: {remedy}')
    if not _version(requirement.minimum) <= _version(found) < _version(requirement.below):
        state = 'old' if _version(found) < _version(requirement.minimum) else 'new'
        raise ImportError(
            f'mixdet needs {requirement.name}>={requirement.minimum},<{requirement.below}{beside}, but {found} is '
            f'installed, which is too {state}: {remedy}'
        )
    return found


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
