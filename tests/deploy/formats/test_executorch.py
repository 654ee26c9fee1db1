import sys

import numpy as np
import pytest
from device_formats import check_a_whole_detector, check_damaged_files, check_other_files_are_refused, needs, write

from mixdet.deploy.exported import load_exported
from mixdet.deploy.formats.sidecar import write_sidecar
from mixdet.errors import UserError

pytestmark = pytest.mark.slow


@needs('executorch')
def test_a_whole_detector(tiny, tmp_path, demo_images):
    check_a_whole_detector(tiny, tmp_path, '.pte', demo_images, ('fp32',))
    with pytest.raises(UserError, match='cannot lower this network in int8 .*use tflite'):
        write(tiny, tmp_path / 'int8.pte', demo_images, 'int8')
    assert not (tmp_path / 'int8.pte').exists()
    (tmp_path / 'damaged').mkdir()
    check_damaged_files(tmp_path / 'fp32.pte', tmp_path / 'damaged')
    check_numbers_of_threads(tmp_path / 'fp32.pte')
    with pytest.raises(UserError, match='in which a crafted file may reach the memory of the process, and was not run'):
        load_exported(tmp_path / 'fp32.pte')


def check_numbers_of_threads(path):
    """Programs of one process may have different ones; the runtime, by itself, then crashes."""
    image = np.random.default_rng(0).normal(0, 1, (1, 3, 160, 160)).astype(np.float32)
    runs = [load_exported(path, trusted=True, threads=threads)[0] for threads in (1, 2)]
    found = [run(image) for run in (*runs, *runs)]
    for other in found[1:]:
        for ours, theirs in zip(found[0], other):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@needs('executorch')
def test_other_files_are_refused(tmp_path):
    check_other_files_are_refused(tmp_path / 'a.pte')


def test_packages_are_needed(tiny, tmp_path, demo_images, monkeypatch):
    for name in ('executorch', 'executorch.backends.xnnpack.partition.xnnpack_partitioner', 'executorch.runtime'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"--format executorch: .*pip install -e '\.\[executorch\]'"):
        write(tiny, tmp_path / 'a.pte', demo_images)
    assert not list(tmp_path.iterdir())
    (tmp_path / 'a.pte').touch()
    write_sidecar(tmp_path / 'a.pte', {})
    with pytest.raises(UserError, match='needs executorch, which is not installed: pip install executorch'):
        load_exported(tmp_path / 'a.pte', trusted=True)
