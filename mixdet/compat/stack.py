"""Are the packages that mixdet depends on installed, in versions that fit together?

They are not requirements of the distribution: mmcv, mmcv-lite and onedl-mmcv all install the package ``mmcv`` (likewise
mmengine and mmdet), and pip would overwrite a compiled one of the user's. So the packages are checked on import.
"""

import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Optional


class Requirement(NamedTuple):
    """Package ``name`` in a version from ``minimum`` up to, but not including, ``below``; ``pip`` installs it."""

    name: str
    minimum: str
    below: str
    pip: str


TORCH = Requirement('torch', '2.0', '3', 'torch==2.13.0')
MMENGINE = Requirement('mmengine', '0.10.3', '0.11', 'mmengine==0.10.7')
MMDET = Requirement('mmdet', '3.3.0', '3.6', 'mmdet==3.3.0')
MMCV_LITE = 'mmcv-lite==2.1.0'
# mmdet asserts the same range of mmcv when it is imported; here the message has the command that fixes it
MMCV = {
    '3.3': Requirement('mmcv', '2.0.0', '2.2.0', MMCV_LITE),
    'newer': Requirement('mmcv', '2.2.0', '2.4', 'onedl-mmcv==2.3.6'),
}


def check_stack() -> None:
    """Raise ImportError, one line with the pip command that fixes it, if a package is missing, too old or too new."""
    for requirement in (TORCH, MMENGINE, MMDET):
        _check(requirement)
    _check(MMCV['3.3' if _version(installed_version('mmdet') or '') < (3, 4) else 'newer'])
    if find_spec('pycocotools') is None:
        raise ImportError('mixdet needs pycocotools, which is not installed: pip install pycocotools')


def installed_version(package: str) -> Optional[str]:
    """Version of a package, read from its ``version.py`` without importing it; None if it is not installed."""
    spec = find_spec(package)
    if spec is None or not spec.origin:
        return None
    text = (Path(spec.origin).parent / 'version.py').read_text()
    # a literal, or the forks' look-up of their own distribution: __version__ = version('onedl-mmcv')
    match = re.search(r"^__version__[^=\n]*=\s*(version\()?['\"]([^'\"]+)", text, re.MULTILINE)
    if match is None:
        return None
    return version(match[2]) if match[1] else match[2]


def _version(text: str) -> tuple[int, ...]:
    """The numbers that a version begins with: '2.13.0+cpu' -> (2, 13, 0)."""
    return tuple(int(part) for part in re.findall(r'\d+', re.split(r'[^\d.]', text)[0]))


def _check(requirement: Requirement) -> None:
    found = installed_version(requirement.name)
    remedy = f"pip install '{requirement.pip}'"
    if found is None:
        raise ImportError(f'mixdet needs {requirement.name}, which is not installed: {remedy}')
    if not _version(requirement.minimum) <= _version(found) < _version(requirement.below):
        state = 'old' if _version(found) < _version(requirement.minimum) else 'new'
        raise ImportError(
            f'mixdet needs {requirement.name}>={requirement.minimum},<{requirement.below}, but {found} is installed, '
            f'which is too {state}: {remedy}'
        )
