import ctypes
import json
import os
import platform
import subprocess
import sys

import pytest
from helpers import ROOT

from mixdet.engine.allocator import keep_freed_memory


@pytest.fixture
def calls(monkeypatch):
    """Calls of mallopt, which is not really called: its settings last as long as the process."""
    made = []

    class Library:
        def __init__(self, name):
            assert name is None  # the process itself

        def mallopt(self, parameter, value):
            made.append((parameter, value))
            return 1

    monkeypatch.setattr(ctypes, 'CDLL', Library)
    for name in list(os.environ):
        if name.startswith(('MALLOC_', 'GLIBC_')):
            monkeypatch.delenv(name)
    return made


def test_large_blocks_come_from_a_heap_that_is_not_trimmed(calls):
    assert keep_freed_memory() is True
    assert calls == [(-3, 2**30), (-1, -1)]  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of glibc's malloc.h


@pytest.mark.parametrize('setting', ['MALLOC_MMAP_THRESHOLD_', 'MALLOC_ARENA_MAX', 'GLIBC_TUNABLES'])
def test_the_users_own_settings_stay(calls, monkeypatch, setting):
    monkeypatch.setenv(setting, '131072')
    assert keep_freed_memory() is False and calls == []


@pytest.mark.parametrize('error', [AttributeError, OSError, TypeError])
def test_other_c_libraries_are_left_alone(calls, monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr(ctypes, 'CDLL', fail)
    assert keep_freed_memory() is False


def test_a_refused_setting_is_told(calls, monkeypatch):
    monkeypatch.setattr(ctypes.CDLL, 'mallopt', lambda self, parameter, value: int(parameter == -3))
    assert keep_freed_memory() is False


# a block of 64 MiB: how many mappings of their own it adds, and by how much the heap has grown when it is freed again
PROBE = """
import ctypes, importlib.util, json, sys
spec = importlib.util.spec_from_file_location('allocator', sys.argv[1])
allocator = importlib.util.module_from_spec(spec)
spec.loader.exec_module(allocator)
kept = sys.argv[2] == 'kept' and allocator.keep_freed_memory()

names = 'arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost'.split()
Info = type('mallinfo', (ctypes.Structure,), dict(_fields_=[(name, ctypes.c_int) for name in names]))
libc = ctypes.CDLL(None)
libc.mallinfo.restype = Info
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

before = libc.mallinfo()
block = libc.malloc(2**26)
during = libc.mallinfo()
libc.free(block)
after = libc.mallinfo()
print(json.dumps([kept, during.hblks - before.hblks, after.arena - before.arena]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='another C library')
@pytest.mark.parametrize('kept', [True, False])
def test_glibc_keeps_freed_memory(kept):
    skipped = ('MALLOC_', 'GLIBC_', 'LD_PRELOAD')
    environment = {name: value for name, value in os.environ.items() if not name.startswith(skipped)}
    command = [sys.executable, '-c', PROBE, str(ROOT / 'mixdet/engine/allocator.py'), 'kept' if kept else 'left alone']
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    called, mappings, growth = json.loads(done.stdout)
    assert (called, mappings, growth >= 2**26) == (kept, int(not kept), kept)
