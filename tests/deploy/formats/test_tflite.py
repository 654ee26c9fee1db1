import sys

import pytest
from device_formats import check_a_whole_detector, check_damaged_files, check_other_files_are_refused, needs, write

from mixdet.deploy.exported import load_exported
from mixdet.deploy.formats.sidecar import write_sidecar
from mixdet.errors import UserError

pytestmark = pytest.mark.slow
runtime = needs('ai_edge_litert')
converter = needs('ai_edge_litert', 'litert_torch', 'ai_edge_quantizer')


@pytest.fixture(autouse=True)
def contained(monkeypatch):
    """litert-torch and what it imports set these."""
    for name in ('TPU_SKIP_MDS_QUERY', 'TF_CPP_MIN_LOG_LEVEL'):
        monkeypatch.setenv(name, '1')


@converter
def test_a_whole_detector(tiny, tmp_path, demo_images):
    check_a_whole_detector(tiny, tmp_path, '.tflite', demo_images)
    (tmp_path / 'damaged').mkdir()
    check_damaged_files(tmp_path / 'int8.tflite', tmp_path / 'damaged')


@runtime
def test_other_files_are_refused(tmp_path):
    check_other_files_are_refused(tmp_path / 'a.tflite')


def test_packages_are_needed(tiny, tmp_path, demo_images, monkeypatch):
    for name in ('litert_torch', 'ai_edge_litert', 'ai_edge_litert.interpreter'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"--format tflite: .*pip install -e '\.\[tflite\]'"):
        write(tiny, tmp_path / 'a.tflite', demo_images)
    assert not list(tmp_path.iterdir())
    (tmp_path / 'a.tflite').touch()
    write_sidecar(tmp_path / 'a.tflite', {})
    with pytest.raises(UserError, match='needs ai-edge-litert, which is not installed: pip install ai-edge-litert'):
        load_exported(tmp_path / 'a.tflite')
