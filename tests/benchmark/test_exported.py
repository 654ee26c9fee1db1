import sys

import pytest
import torch
from helpers import tiny_checkpoint

from mixdet.benchmark.exported import latencies, main, memory
from mixdet.deploy.export import export, export_metadata
from mixdet.deploy.inference import Detector
from mixdet.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    config, checkpoint = tiny_checkpoint(tmp_path_factory.mktemp('tiny'))
    path = config.with_name('a.torchscript')
    detector = Detector(config, checkpoint, fuse=False)
    export(detector, export_metadata(detector, 'c.py', True), path, 'torchscript')
    return path


def test_memory_of_a_file(file, monkeypatch, capsys):
    with pytest.raises(UserError, match=r'a\.torchscript: measuring its memory failed with status 1: .*is a program'):
        memory(file)
    monkeypatch.setattr(sys, 'argv', ['exported.py', str(file), '--unsafe-load'])
    main()
    assert float(capsys.readouterr().out) >= 0


def test_latencies_are_of_one_image_on_so_many_threads():
    seen = []

    class Detector:
        def __init__(self, name, threads):
            self.name = name
            seen.append((name, threads))

        def test_step(self, batch):
            seen.append((self.name, torch.get_num_threads(), torch.is_inference_mode_enabled(), batch))

    before = torch.get_num_threads()
    openers = {name: lambda threads, name=name: Detector(name, threads) for name in 'ab'}
    found = latencies(openers, dict(inputs=[1, 2], data_samples=[3, 4]), before + 1, 0.0)
    assert torch.get_num_threads() == before and list(found) == ['a', 'b']
    assert seen[:2] == [('a', before + 1), ('b', before + 1)]
    first = dict(inputs=[1], data_samples=[3])
    assert seen[2:4] == [('a', before + 1, True, first), ('b', before + 1, True, first)]
    assert found['a'].rounds >= 1 and found['a'].wall >= 0
