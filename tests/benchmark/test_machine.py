import os

import pytest
import torch

from mixdet.benchmark.machine import device_name, environment
from mixdet.layers.cpu import cpu_name

pytestmark = pytest.mark.slow


def test_environment_is_one_line():
    line = environment()
    assert line.startswith(f'{os.cpu_count()} x {cpu_name()}, {torch.get_num_threads()} thread(s), ')
    assert line.endswith(f', torch {torch.__version__}') and '\n' not in line


def test_device_is_the_gpu_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert device_name() == cpu_name()
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'a GPU')
    assert device_name() == 'a GPU'
