import pytest
import torch

from mixdet.deploy.export import SUFFIXES
from mixdet.deploy.exported import format_of, load_exported
from mixdet.errors import UserError


@pytest.mark.parametrize('suffix', SUFFIXES.values())
def test_a_file_that_is_none(tmp_path, suffix):
    (tmp_path / f'a{suffix}').write_bytes(b'nothing')
    with pytest.raises(UserError, match='is no detector exported by'):
        load_exported(tmp_path / f'a{suffix}')
    with pytest.raises(UserError, match='does not exist'):
        load_exported(tmp_path / f'gone{suffix}')
    with pytest.raises(UserError, match='must end in one of .onnx, .torchscript, .pt2'):
        load_exported(__file__)


def test_somebody_elses_torchscript(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(tmp_path / 'b.torchscript'))
    with pytest.raises(UserError, match='is no detector exported by'):
        load_exported(tmp_path / 'b.torchscript')


def test_formats_are_known_by_their_suffix():
    assert (format_of('a/b.onnx'), format_of('b.pt2'), format_of('b.pth')) == ('onnx', 'torch-export', None)
