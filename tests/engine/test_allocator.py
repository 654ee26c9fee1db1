"""Each case in a process of its own: the allocator's settings last as long as the process."""

import os
import platform
import subprocess
import sys

import pytest

# a tensor of 64 MiB, which glibc takes from the system anew each time, page by page
CODE = """
import resource
import torch
from mixdet.engine.allocator import keep_freed_memory

print(keep_freed_memory())
for _ in range(3):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def start(**settings):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(('MALLOC_', 'GLIBC_'))}
    environment.update(settings, OMP_NUM_THREADS='1')
    done = subprocess.run([sys.executable, '-c', CODE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='another C library')
def test_freed_memory_is_used_again():
    kept, faults = start()
    assert kept == 'True' and faults < 100


@pytest.mark.parametrize('setting', ['MALLOC_MMAP_THRESHOLD_', 'GLIBC_TUNABLES'])
def test_the_users_own_settings_stay(setting):
    value = 'glibc.malloc.mmap_threshold=131072' if setting == 'GLIBC_TUNABLES' else '131072'
    kept, faults = start(**{setting: value})
    assert kept == 'False' and (faults > 10_000 or platform.libc_ver()[0] != 'glibc')
