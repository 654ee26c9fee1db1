import platform

import pytest

from mixdet.layers import cpu

CORE = """processor\t: {number}
model name\t: A CPU: 3 GHz
cpu MHz\t\t: {clock}
flags\t\t: fma avx2

"""


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    file = tmp_path / 'cpuinfo'
    monkeypatch.setattr(cpu, 'CPUINFO', file)
    return file


def test_name_and_features_of_a_cpu_with_two_cores(cpuinfo):
    cpuinfo.write_text(CORE.format(number=0, clock=1000) + CORE.format(number=1, clock=2000))
    assert cpu.cpu_name() == 'A CPU: 3 GHz'
    # the current clock and the number of cores make no difference
    assert cpu.cpu_features() == 'flags\t\t: fma avx2 model name\t: A CPU: 3 GHz'


def test_systems_without_a_name(cpuinfo, monkeypatch):
    monkeypatch.setattr(platform, 'processor', lambda: 'arm')
    assert cpu.cpu_name() == cpu.cpu_features() == 'arm'
    monkeypatch.setattr(platform, 'processor', lambda: '')
    monkeypatch.setattr(platform, 'machine', lambda: 'aarch64')
    assert cpu.cpu_name() == 'aarch64'
    cpuinfo.write_text('Features\t: asimd\nCPU part\t: 0xd0c\n')
    assert cpu.cpu_name() == 'aarch64' and cpu.cpu_features() == 'CPU part\t: 0xd0c Features\t: asimd'
