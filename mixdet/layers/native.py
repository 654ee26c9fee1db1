"""The mixed convolution as one C++ operator for the CPU (``csrc/``), compiled on first use.

The library is built by the machine's own compiler and kept in ``$XDG_CACHE_HOME/mixdet`` (``~/.cache/mixdet``), one
file for each combination of PyTorch version, CPU, compiler and source, with its checksum beside it. If the build fails,
the reason is kept there too. What was cut off, or could have been written by another user than this one or root, is not
loaded but built again.

Environment variables: ``CXX`` is the compiler (GCC or Clang, because the source uses their vector types),
``MIXDET_NATIVE=0`` switches the operator off, ``MIXDET_CXXFLAGS`` adds compiler flags.
"""

import contextlib
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import torch

from mixdet.compat.stack import is_at_least
from mixdet.errors import first_line
from mixdet.layers import registration
from mixdet.layers.cpu import cpu_features
from mixdet.text import printable

SWITCH = 'MIXDET_NATIVE'
MAIN_SOURCE = Path(__file__).with_name('csrc') / 'mixconv.cpp'
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# in a compiler's output these point to the machine, and another attempt may succeed
TEMPORARY = ('Killed', 'terminated', 'No space left', 'Cannot allocate', 'out of memory')
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
logger = logging.getLogger(__name__)
_LIBRARY = torch.library.Library('mixdet', 'IMPL')


class BuildError(RuntimeError):
    """The operator cannot be compiled here; the message is one line that says why."""


@functools.cache
def load() -> bool:
    """Compile the operator unless that has been tried, load it, and return whether that worked.

    Compiling is announced in one line. A failure never raises: one line, once, gives the reason.
    """
    if os.environ.get(SWITCH, '1').lower() in ('0', 'off', 'false', 'no'):
        return False
    try:
        torch.ops.load_library(str(_library()))
        registration.register('mixconv2d', _LIBRARY, ['cpu'])
    except Exception as error:  # of the system, the compiler, the cache, PyTorch: there is another way to compute
        cause = error.__cause__ or error  # PyTorch's error names the file, its cause has the system's reason
        reason = printable(first_line(cause))
        logger.warning('The native MixConv operator is not available, MixConv runs group by group: %s', reason)
        return False
    return True


@registration.constant_when_compiled
def available() -> bool:
    """Whether the operator can be used: :func:`load`, which torch.compile must not trace into."""
    return load()


def compiler() -> list[str]:
    """The C++ compiler's path, and the arguments that ``CXX`` gives it. Raises BuildError if there is none."""
    name, *arguments = shlex.split(os.environ.get('CXX', '')) or ['c++']
    path = shutil.which(name)
    if path is None:
        raise BuildError(f'there is no C++ compiler {name!r}: install GCC or Clang, or set CXX to one')
    return [path, *arguments]


def _library() -> Path:
    """The compiled library, built if it is not there or not whole. Raises BuildError if that fails or has failed."""
    import fcntl  # on Windows an ImportError, which load reports

    command = _command()
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mixdet'
    library = cache / f'mixconv-{_digest(command)}.so'
    failure = library.with_suffix('.failed')
    _make_private(cache)
    if _is_whole(library):
        return library
    # the lock ends with the process, so nobody waits for a build that was killed
    with open(cache / 'lock', 'wb', opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW, 0o600)) as lock:
        if os.fstat(lock.fileno()).st_uid not in (0, os.geteuid()):  # who could hold it for ever
            raise BuildError(f'{lock.name} belongs to another user; remove it')
        fcntl.flock(lock, fcntl.LOCK_EX)
        if failure.exists() and _is_private(failure.lstat()):
            reason = failure.read_text(encoding='utf-8', errors='replace').strip()
            raise BuildError(f'{reason} (not tried again; to try, delete {failure})')
        if not _is_whole(library):
            logger.warning(
                'Compiling the native MixConv operator with %s: once, about half a minute (%s=0 switches it off).',
                Path(command[0]).name,
                SWITCH,
            )
            _build(command, library, failure)
    return library


def _make_private(cache: Path) -> None:
    """Make the folder, and let nobody else write into it. Raises BuildError if it belongs to somebody else."""
    cache.mkdir(mode=0o755, parents=True, exist_ok=True)
    status = cache.stat()
    if status.st_uid == os.geteuid() and status.st_mode & OTHERS_WRITE:
        cache.chmod(stat.S_IMODE(status.st_mode) & ~OTHERS_WRITE)  # each file that lies in it is looked at later
    if not _is_private(cache.stat()):
        raise BuildError(f'other users can write to {cache}; set XDG_CACHE_HOME to a folder of your own')


def _is_private(status: os.stat_result) -> bool:
    """Whether only this user or root can have written what has this ``status``; of a link nobody knows."""
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & OTHERS_WRITE and not stat.S_ISLNK(status.st_mode)


def _is_whole(library: Path) -> bool:
    """Whether ``library`` is as it was built, by this user or root."""
    files = library, _checksum(library)
    if not all(path.exists() and _is_private(path.lstat()) for path in files):
        return False
    return _checksum(library).read_bytes() == _sha256(library)


def _checksum(library: Path) -> Path:
    return library.with_suffix('.sha256')


def _sha256(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).hexdigest().encode()


def _build(command: list[str], library: Path, failure: Path) -> None:
    """Compile ``library``; if that fails, write the reason into ``failure`` and raise BuildError."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        out = Path(folder, library.name)
        done = subprocess.run([*command, '-o', str(out)], capture_output=True, text=True, errors='replace')
        if done.returncode == 0:
            _checksum(out).write_bytes(_sha256(out))
            for part in (_checksum(out), out):
                part.chmod(0o755)  # whatever the umask is
                _sync(part)
                part.replace(library.with_suffix(part.suffix))
            with contextlib.suppress(OSError):  # not every file system can sync folders
                _sync(library.parent)
            return
    lines = done.stderr.strip().splitlines() or [f'{command[0]} ended with status {done.returncode}']
    reason = next((line for line in lines if 'error' in line), lines[0])
    if done.returncode > 0 and not any(word in done.stderr for word in TEMPORARY):
        failure.unlink(missing_ok=True)  # which another user may have put there
        failure.write_text(f'{reason}\n', encoding='utf-8')
        failure.chmod(0o644)
    raise BuildError(reason)


def _sync(path: Path) -> None:
    """Wait until ``path``, a file or a folder, is on the disk: else a crash may leave a file that is cut off."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(command: list[str]) -> str:
    """A hash of everything that the library depends on."""
    # not where the source lies, so that another copy of it needs no compilation
    digest = hashlib.sha256(' '.join(part for part in command if part != str(MAIN_SOURCE)).encode())
    for source in sorted(MAIN_SOURCE.parent.iterdir()):
        digest.update(source.read_bytes())
    status = Path(command[0]).resolve().stat()  # another version of the compiler is another file
    digest.update(f'{status.st_size} {status.st_mtime_ns}'.encode())
    digest.update(f'{torch.__version__} {platform.machine()} {cpu_features()}'.encode())
    return digest.hexdigest()[:16]


def _command() -> list[str]:
    """The compiler and its arguments, without the output.

    The paths are those of ``torch.utils.cpp_extension``, whose import needs setuptools and looks for CUDA. OpenMP is
    not requested, see ``csrc/parallel.h``.
    """
    root = Path(torch.__file__).parent
    standard = 20 if is_at_least(torch.__version__, '2.9') else 17
    native = '-march=native' if platform.machine() in ('x86_64', 'AMD64') else '-mcpu=native'
    return [
        *compiler(),
        *('-O3', native, '-ffp-contract=fast', f'-std=c++{standard}', '-fPIC', '-shared'),
        f'-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}',
        *(f'-isystem{root / path}' for path in ('include', 'include/torch/csrc/api/include')),
        str(MAIN_SOURCE),
        f'-L{root / "lib"}',
        *('-lc10', '-ltorch_cpu'),
        *shlex.split(os.environ.get('MIXDET_CXXFLAGS', '')),
    ]
