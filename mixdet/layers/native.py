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
from typing import Optional

import torch
from torch import Tensor

SWITCH = 'MIXDET_NATIVE'
SOURCES = Path(__file__).with_name('csrc')
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
logger = logging.getLogger(__name__)


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
    _register()
    return True


@getattr(getattr(torch, 'compiler', None), 'assume_constant_result', lambda function: function)
def available() -> bool:
    """:func:`load`, whose compiler torch.compile must not trace through; the answer never changes."""
    return load()


def _library() -> Path:
    """The compiled library, built if need be."""
    import fcntl  # not on Windows, which is told so

    command = _command()
    digest = hashlib.sha256(' '.join(command).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    digest.update(f'{torch.__version__} {platform.machine()} {_cpu()}'.encode())
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


def _cpu() -> str:
    """What decides the instructions that ``-march=native`` may use."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ('model name', 'flags', 'Features', 'CPU part')
    return ' '.join(sorted({line for line in lines if line.startswith(wanted)}))


def _register() -> None:
    """Shapes for torch.compile, and autocast."""
    register_fake = getattr(torch.library, 'register_fake', None) or getattr(torch.library, 'impl_abstract', None)
    if register_fake is not None:
        register_fake('mixdet::mixconv2d')(_fake_forward)
        register_fake('mixdet::mixconv2d_input_grad')(_fake_input_grad)
        register_fake('mixdet::mixconv2d_weight_grad')(_fake_weight_grad)
    _LIBRARY.impl('mixconv2d', _autocast, 'AutocastCPU')


_LIBRARY = torch.library.Library('mixdet', 'IMPL')


def _layout(x: Tensor) -> torch.memory_format:
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def _fake_forward(input, weight, bias, stride, padding, dilation, same, activation):
    size = []
    for axis in (0, 1):
        pixels = input.shape[2 + axis]
        if not same:
            pixels = pixels + 2 * padding[axis] - dilation[axis] * (weight[0].shape[2 + axis] - 1)
        size.append((pixels + stride[axis] - 1) // stride[axis])
    return torch.empty((*input.shape[:2], *size), dtype=input.dtype, device=input.device, memory_format=_layout(input))


def _fake_input_grad(grad, weight, size, stride, padding, dilation, same):
    return torch.empty((*grad.shape[:2], *size), dtype=grad.dtype, device=grad.device, memory_format=_layout(grad))


def _fake_weight_grad(grad, input, kernel, stride, padding, dilation, same):
    return [input.new_empty((kernel[i], 1, *kernel[i + 1 : i + 3])) for i in range(0, len(kernel), 3)]


def _autocast(input, weight, bias, *options):
    dtype = torch.get_autocast_dtype('cpu') if hasattr(torch, 'get_autocast_dtype') else torch.get_autocast_cpu_dtype()

    def cast(x: Optional[Tensor]) -> Optional[Tensor]:
        return x.to(dtype) if x is not None and x.is_floating_point() and x.dtype != torch.float64 else x

    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
    with torch._C._ExcludeDispatchKeyGuard(keys):
        return torch.ops.mixdet.mixconv2d(cast(input), [cast(w) for w in weight], cast(bias), *options)
