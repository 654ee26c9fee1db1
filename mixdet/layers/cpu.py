"""The CPU of this machine: its name, and what it can do."""

import platform
from pathlib import Path

CPUINFO = Path('/proc/cpuinfo')


def cpu_name() -> str:
    """The model name of the CPU, or its architecture where the system does not tell the name."""
    for line in _cpuinfo():
        key, _, value = line.partition(':')
        if key.strip() == 'model name':
            return value.strip()
    return platform.processor() or platform.machine()


def cpu_features() -> str:
    """What decides the instructions that a compiler may use with ``-march=native``: model, flags and the like."""
    lines = _cpuinfo()
    if not lines:
        return platform.processor()
    wanted = ('model name', 'flags', 'Features', 'CPU part')
    return ' '.join(sorted({line for line in lines if line.startswith(wanted)}))


def _cpuinfo() -> list[str]:
    """Lines of Linux's description of every core; none on other systems."""
    try:
        return CPUINFO.read_text().splitlines()
    except OSError:
        return []
