"""The mixed convolution as one C++ operator for the CPU (``csrc/``), compiled on first use.

The library is built by the machine's own compiler and kept in ``$XDG_CACHE_HOME/mixdet`` (``~/.cache/mixdet``), one
file for each combination of PyTorch version, CPU, compiler command and source. Environment variables: ``CXX`` is the
compiler (GCC or Clang, because the source uses their vector types), ``MIXDET_NATIVE=0`` switches the operator off,
``MIXDET_CXXFLAGS`` adds compiler flags.
"""

import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from mixdet.layers import registration
from mixdet.layers.cpu import cpu_features

SWITCH = 'MIXDET_NATIVE'
MAIN_SOURCE = Path(__file__).with_name('csrc') / 'mixconv.cpp'
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
logger = logging.getLogger(__name__)
_LIBRARY = torch.library.Library('mixdet', 'IMPL')


@functools.cache
def load() -> bool:
    """Compile the operator unless that has been done, load it, and return whether that worked.

    Compiling is announced in one line. A failure never raises: one line, once, gives the reason.
    """
    if os.environ.get(SWITCH, '1').lower() in ('0', 'off', 'false', 'no'):
        return False
    try:
        torch.ops.load_library(str(_library()))
    except (ImportError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        detail = getattr(error, 'stderr', None) or str(error)
        reason = next((line for line in detail.splitlines() if 'error' in line), detail.strip().split('\n')[0])
        logger.warning('The native MixConv operator is not available, MixConv runs group by group: %s', reason)
        return False
    registration.register('mixconv2d', _LIBRARY, ['cpu'])
    return True


@registration.constant_when_compiled
def available() -> bool:
    """Whether the operator can be used: :func:`load`, which torch.compile must not trace into."""
    return load()


def _library() -> Path:
    """The compiled library; builds it if it is not there."""
    import fcntl  # on Windows an ImportError, which load reports

    command = _command()
    # not where the source lies, so that another copy of it needs no compilation
    digest = hashlib.sha256(' '.join(part for part in command if part != str(MAIN_SOURCE)).encode())
    for source in sorted(MAIN_SOURCE.parent.iterdir()):
        digest.update(source.read_bytes())
    digest.update(f'{torch.__version__} {platform.machine()} {cpu_features()}'.encode())
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mixdet'
    library = cache / f'mixconv-{digest.hexdigest()[:16]}.so'
    if library.exists():
        return library
    cache.mkdir(parents=True, exist_ok=True)
    # the lock ends with the process, so nobody waits for a build that was killed
    with open(cache / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            logger.warning(
                'Compiling the native MixConv operator with %s: once, about half a minute (%s=0 switches it off).',
                Path(command[0]).name,
                SWITCH,
            )
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                out = Path(folder, library.name)
                subprocess.run([*command, '-o', str(out)], check=True, capture_output=True, text=True)
                out.replace(library)
    return library


def _command() -> list[str]:
    """The compiler and its arguments, without the output."""
    from torch.utils.cpp_extension import include_paths, library_paths

    names = shlex.split(os.environ.get('CXX', '')) or ['c++']
    compiler = shutil.which(names[0])
    if compiler is None:
        raise RuntimeError(f'there is no C++ compiler {names[0]!r}: install GCC or Clang, or set CXX to one')
    version = tuple(int(part) for part in torch.__version__.split('.')[:2])
    native = '-march=native' if platform.machine() in ('x86_64', 'AMD64') else '-mcpu=native'
    openmp = ['-fopenmp'] if platform.system() == 'Linux' else []
    return [
        compiler,
        *names[1:],
        *('-O3', native, '-ffp-contract=fast', f'-std=c++{17 if version < (2, 9) else 20}', '-fPIC', '-shared'),
        f'-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}',
        *openmp,
        *(f'-isystem{path}' for path in include_paths()),
        str(MAIN_SOURCE),
        *(f'-L{path}' for path in library_paths()),
        *('-lc10', '-ltorch_cpu'),
        *shlex.split(os.environ.get('MIXDET_CXXFLAGS', '')),
    ]
