"""The mixed convolution as one C++ operator for the CPU (``csrc/``), compiled when it is first wanted.

The library is built by the compiler on the machine and kept for each combination of PyTorch version, CPU, compiler and
source in ``$XDG_CACHE_HOME/mixdet`` (``~/.cache/mixdet``); so is the reason why it could not be built. Environment:
``CXX`` names the compiler (GCC or Clang, as the source uses their vector types), ``MIXDET_NATIVE=0`` does without,
``MIXDET_CXXFLAGS`` adds flags.
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

from mixdet.compat.stack import is_at_least
from mixdet.layers import schema
from mixdet.layers.cpu import cpu_features

SWITCH = 'MIXDET_NATIVE'
SOURCES = Path(__file__).with_name('csrc')
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# in a compiler's output: the machine is to blame, and another attempt may succeed
PASSING = ('Killed', 'terminated', 'No space left', 'Cannot allocate', 'out of memory')
logger = logging.getLogger(__name__)
_LIBRARY = torch.library.Library('mixdet', 'IMPL')


class BuildError(RuntimeError):
    """The operator cannot be compiled here; the message is one line that says why."""


@functools.cache
def load() -> bool:
    """Whether the operator can be used; compiles it where that has not been tried, and says so in one line.

    Why it cannot is said in one line too, once; it never raises.
    """
    if os.environ.get(SWITCH, '1').lower() in ('0', 'off', 'false', 'no'):
        return False
    try:
        torch.ops.load_library(str(_library()))
    except (ImportError, OSError, RuntimeError) as error:
        cause = error.__cause__ or error  # PyTorch names only the file, and what the system said as the cause
        logger.warning(
            'MixConv runs group by group, its native operator is not available: %s', str(cause).strip().split('\n')[0]
        )
        return False
    schema.register('mixconv2d', _LIBRARY, ['cpu'])
    return True


def available() -> bool:
    """:func:`load`, whose compiler torch.compile must not trace through; the answer never changes."""
    return load()


# what torch.compiler.assume_constant_result sets; that function imports torch._dynamo, most of a second
available._dynamo_marked_constant = True


def compiler() -> list[str]:
    """The C++ compiler's path, and the arguments that ``CXX`` gives it. Raises BuildError if there is none."""
    name, *arguments = shlex.split(os.environ.get('CXX', '')) or ['c++']
    path = shutil.which(name)
    if path is None:
        raise BuildError(f'there is no C++ compiler {name} (install GCC or Clang, or name one in CXX)')
    return [path, *arguments]


def _library() -> Path:
    """The compiled library, built if need be. Raises BuildError if that fails, or has failed before."""
    import fcntl  # not on Windows, which is told so

    command = _command()
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mixdet'
    library = cache / f'mixconv-{_digest(command)}.so'
    failure = library.with_suffix('.failed')
    if library.exists():
        return library
    cache.mkdir(parents=True, exist_ok=True)
    # the lock goes with the process, so a build that was killed leaves nothing behind that others would wait for
    with open(cache / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if failure.exists():
            raise BuildError(f'{failure.read_text().strip()} (not tried again; to try, delete {failure})')
        if not library.exists():
            logger.warning(
                'Compiling the native MixConv operator with %s, once, about half a minute; %s=0 does without.',
                Path(command[0]).name,
                SWITCH,
            )
            _build(command, library, failure)
    return library


def _build(command: list[str], library: Path, failure: Path) -> None:
    """Compile ``library``, or write into ``failure`` why it cannot be, and raise BuildError."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        out = Path(folder, library.name)
        done = subprocess.run([*command, '-o', str(out)], capture_output=True, text=True)
        if done.returncode == 0:
            out.replace(library)
            return
    lines = done.stderr.strip().splitlines() or [f'{command[0]} ended with status {done.returncode}']
    reason = next((line for line in lines if 'error' in line), lines[0])
    if done.returncode > 0 and not any(word in done.stderr for word in PASSING):
        failure.write_text(f'{reason}\n')
    raise BuildError(reason)


def _digest(command: list[str]) -> str:
    """What the library depends on."""
    digest = hashlib.sha256(' '.join(command).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    status = Path(command[0]).resolve().stat()  # another version of the compiler is another file
    digest.update(f'{status.st_size} {status.st_mtime_ns}'.encode())
    digest.update(f'{torch.__version__} {platform.machine()} {cpu_features()}'.encode())
    return digest.hexdigest()[:16]


def _command() -> list[str]:
    """The compiler with all arguments but the output.

    The paths are those of ``torch.utils.cpp_extension``, whose import needs setuptools and looks for CUDA. OpenMP is
    not asked for, see ``csrc/parallel.h``.
    """
    root = Path(torch.__file__).parent
    standard = 20 if is_at_least(torch.__version__, '2.9') else 17
    native = '-march=native' if platform.machine() in ('x86_64', 'AMD64') else '-mcpu=native'
    return [
        *compiler(),
        *('-O3', native, '-ffp-contract=fast', f'-std=c++{standard}', '-fPIC', '-shared'),
        f'-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}',
        *(f'-isystem{root / path}' for path in ('include', 'include/torch/csrc/api/include')),
        str(SOURCES / 'mixconv.cpp'),
        f'-L{root / "lib"}',
        *('-lc10', '-ltorch_cpu'),
        *shlex.split(os.environ.get('MIXDET_CXXFLAGS', '')),
    ]
