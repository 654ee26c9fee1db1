import sys

import pytest
from device_formats import check_a_whole_detector, check_damaged_files, check_other_files_are_refused, needs, write

from mixdet.deploy.exported import load_exported
from mixdet.deploy.formats.sidecar import write_sidecar
from mixdet.errors import UserError

pytestmark = pytest.mark.slow


@needs('executorch')
def test_a_whole_detector(tiny, tmp_path, demo_images):
    check_a_whole_detector(tiny, tmp_path, '.pte', demo_images)
    (tmp_path / 'damaged').mkdir()
    check_damaged_files(tmp_path / 'int8.pte', tmp_path / 'damaged')


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
