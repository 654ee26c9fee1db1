"""The mixed convolution as one C++ operator for the CPU (``csrc/``), compiled when it is first wanted.

The library is built by the compiler on the machine and kept for each combination of PyTorch version, CPU and source in
``$XDG_CACHE_HOME/mixdet`` (``~/.cache/mixdet``). Environment: ``CXX`` names the compiler (GCC or Clang, as the source
uses their vector types), ``MIXDET_NATIVE=0`` does without, ``MIXDET_CXXFLAGS`` adds flags.
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

from mixdet.layers import schema
from mixdet.layers.cpu import cpu_features

SWITCH = 'MIXDET_NATIVE'
SOURCES = Path(__file__).with_name('csrc')
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
logger = logging.getLogger(__name__)
_LIBRARY = torch.library.Library('mixdet', 'IMPL')


@functools.cache
def load() -> bool:
    """Whether the operator can be used; compiles it where that has not been done, and says so in one line.

    Why it cannot is said in one line too, once; it never raises.
    """
    if os.environ.get(SWITCH, '1').lower() in ('0', 'off', 'false', 'no'):
        return False
    try:
        torch.ops.load_library(str(_library()))
    except (ImportError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        detail = getattr(error, 'stderr', None) or str(error)
        reason = next((line for line in detail.splitlines() if 'error' in line), detail.strip().split('\n')[0])
        logger.warning('MixConv runs group by group, its native operator is not available: %s', reason)
        return False
    schema.register('mixconv2d', _LIBRARY, ['cpu'])
    return True


def available() -> bool:
    """:func:`load`, whose compiler torch.compile must not trace through; the answer never changes."""
    return load()


# what torch.compiler.assume_constant_result sets; that function imports torch._dynamo, most of a second
available._dynamo_marked_constant = True


def _library() -> Path:
    """The compiled library, built if need be."""
    import fcntl  # not on Windows, which is told so

    command = _command()
    digest = hashlib.sha256(' '.join(command).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    digest.update(f'{torch.__version__} {platform.machine()} {cpu_features()}'.encode())
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mixdet'
    library = cache / f'mixconv-{digest.hexdigest()[:16]}.so'
    if library.exists():
        return library
    cache.mkdir(parents=True, exist_ok=True)
    # the lock goes with the process, so a build that was killed leaves nothing behind that others would wait for
    with open(cache / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            logger.warning(
                'Compiling the native MixConv operator with %s, once, about half a minute; %s=0 does without.',
                Path(command[0]).name,
                SWITCH,
            )
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                out = Path(folder, library.name)
                subprocess.run([*command, '-o', str(out)], check=True, capture_output=True, text=True)
                out.replace(library)
    return library


def _command() -> list[str]:
    """The compiler with all arguments but the output."""
    from torch.utils.cpp_extension import include_paths, library_paths

    names = shlex.split(os.environ.get('CXX', '')) or ['c++']
    compiler = shutil.which(names[0])
    if compiler is None:
        raise RuntimeError(f'there is no C++ compiler {names[0]} (install GCC or Clang, or name one in CXX)')
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
        str(SOURCES / 'mixconv.cpp'),
        *(f'-L{path}' for path in library_paths()),
        *('-lc10', '-ltorch_cpu'),
        *shlex.split(os.environ.get('MIXDET_CXXFLAGS', '')),
    ]
