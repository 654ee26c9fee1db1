import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from mixdet.engine.checkpoint import read_checkpoint
from mixdet.errors import UserError

safetensors = pytest.importorskip('safetensors.torch')

METADATA = {'source': '7', 'other': '[not JSON', 'deep': '[' * 10**5, 'dataset_meta': '{"classes": ["a", "b"]}'}


def test_mmengine_loads_them(tmp_path):
    tensors = {'a.weight': torch.randn(2, 3), 'a.count': torch.tensor(3)}
    safetensors.save_file(tensors, tmp_path / 'a.safetensors', metadata=METADATA)
    for checkpoint in (
        CheckpointLoader.load_checkpoint(str(tmp_path / 'a.safetensors'), map_location='cpu'),
        read_checkpoint(tmp_path / 'a.safetensors'),
    ):
        assert checkpoint['meta'] == {**METADATA, 'dataset_meta': {'classes': ['a', 'b']}}
        assert {name: value.tolist() for name, value in checkpoint['state_dict'].items()} == {
            name: value.tolist() for name, value in tensors.items()
        }


def test_other_files_still_go_to_mmengines_loaders(tmp_path):
    torch.save({'a': torch.ones(1)}, tmp_path / 'safetensors.pth')
    assert CheckpointLoader.load_checkpoint(str(tmp_path / 'safetensors.pth'))['a'] == 1
    assert 'http' in CheckpointLoader._get_checkpoint_loader('https://x/a.pth').__name__


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    safetensors.save_file({'a': torch.zeros(100)}, tmp_path / 'a.safetensors')
    for name, content in (('cut', (tmp_path / 'a.safetensors').read_bytes()[:50]), ('text', b'not at all a file')):
        (tmp_path / f'{name}.safetensors').write_bytes(content)
        with pytest.raises(UserError, match=f'{name}.safetensors cannot be read'):
            read_checkpoint(tmp_path / f'{name}.safetensors')
