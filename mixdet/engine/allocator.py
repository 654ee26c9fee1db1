"""Settings of the C library's memory allocator for training."""

import ctypes
import os

# of glibc's malloc.h
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Let the process keep the memory of freed tensors for the next ones; returns whether that was possible.

    glibc returns blocks of more than 32 MiB to the system as soon as they are freed. Activations are such blocks, and
    the system zeroes every page of the next one on first touch (docs/speed.md). The price: the process stays at its
    peak memory. Does nothing with other C libraries, or if the environment has settings of the user's own
    (``MALLOC_*``, ``GLIBC_TUNABLES``).
    """
    if any(name.startswith('MALLOC_') or name == 'GLIBC_TUNABLES' for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(MMAP_THRESHOLD, 2**30) and mallopt(TRIM_THRESHOLD, -1))
