"""The machine that a measurement was made on."""

import os
import platform

import torch

from mixdet.layers.cpu import cpu_name


def device_name() -> str:
    """The name of the GPU if there is one, otherwise of the CPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()


def environment() -> str:
    """One line: the CPU, PyTorch's threads, how busy the machine is, and the versions of Python and PyTorch."""
    cpus = f'{os.cpu_count()} x {cpu_name()}, {torch.get_num_threads()} thread(s)'
    load = f'load average {os.getloadavg()[0]:.1f}, ' if hasattr(os, 'getloadavg') else ''
    versions = f'Python {platform.python_version()}, torch {torch.__version__}'
    return f'{cpus}, {torch.backends.cpu.get_cpu_capability()}, {load}{versions}'


def gpu_environment(bytes_per_ms: float) -> str:
    """One line: the GPU, ``bytes_per_ms`` that a copy reads and writes, its libraries, and the rest."""
    try:
        import triton

        kernels = f'Triton {triton.__version__}'
    except ImportError:
        kernels = 'no Triton'
    return (
        f'{torch.cuda.get_device_name()}, copies at {bytes_per_ms / 1e9:.2f} TB/s, CUDA {torch.version.cuda}, '
        f'cuDNN {torch.backends.cudnn.version()}, {kernels}; {environment()}'
    )
