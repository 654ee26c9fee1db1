"""Name and features of this machine's CPU."""

import platform
from pathlib import Path

CPUINFO = Path('/proc/cpuinfo')


def cpu_name() -> str:
    """The model name of the CPU, or its architecture if the system does not give a name."""
    for line in _cpuinfo():
        key, _, value = line.partition(':')
        if key.strip() == 'model name':
            return value.strip()
    return platform.processor() or platform.machine()


def cpu_features() -> str:
    """Model, flags and so on, which determine the instructions that a compiler uses with ``-march=native``."""
    lines = _cpuinfo()
    if not lines:
        return platform.processor()
    wanted = ('model name', 'flags', 'Features', 'CPU part')
    return ' '.join(sorted({line for line in lines if line.startswith(wanted)}))


def _cpuinfo() -> list[str]:
    """The lines of Linux's description of all cores; none on other systems."""
    try:
        return CPUINFO.read_text(encoding='utf-8').splitlines()
    except OSError:
        return []
