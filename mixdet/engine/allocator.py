"""The C library's memory allocator, set up for training."""

import ctypes
import os

# of glibc's malloc.h
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Let the process keep the memory of freed tensors for the next ones; whether that was possible.

    glibc returns blocks of more than 32 MiB to the system as soon as they are freed. Activations are such blocks, and
    the system hands out each page of the next one zeroed, on first touch (docs/speed.md).
    Memory stays at its highest level instead of falling in between. Left alone are other C libraries, and a user's
    own settings in the environment (``MALLOC_*``, ``GLIBC_TUNABLES``).
    """
    if any(name.startswith('MALLOC_') or name == 'GLIBC_TUNABLES' for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(MMAP_THRESHOLD, 2**30) and mallopt(TRIM_THRESHOLD, -1))
