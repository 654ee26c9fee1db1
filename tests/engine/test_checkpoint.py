import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from helpers import tiny_detector

from mixdet.compat.checkpoints import SAFE_LOADING
from mixdet.engine.checkpoint import check_fits, check_pretrained, check_related, read_checkpoint
from mixdet.errors import UserError


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict=tiny_detector().state_dict(), meta=dict(epoch=1)), path)
    return path


def test_a_good_file_fits(saved):
    checkpoint = read_checkpoint(saved)
    check_fits(checkpoint, tiny_detector(), saved)
    check_fits(checkpoint['state_dict'], tiny_detector(), saved)  # bare weights
    prefixed = {f'module.{key}': value for key, value in checkpoint['state_dict'].items()}
    check_fits(dict(state_dict=prefixed), tiny_detector(), saved)


class Attack:
    def __reduce__(self):
        return os.system, ('touch hacked',)


def test_damaged_files_are_refused_in_one_line(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = saved.read_bytes()
    cases = {
        'truncated.pth': whole[: len(whole) // 2],
        'empty.pth': b'',
        'text.pth': b'not a checkpoint at all',
        'picture.pth': b'\x89PNG\r\n\x1a\n' + bytes(100),
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f'checkpoint {name} is corrupt'):
            read_checkpoint(name)
    with pytest.raises(UserError, match='gone.pth does not exist'):
        read_checkpoint('gone.pth')
    torch.save([1, 2], 'list.pth')
    with pytest.raises(UserError, match='holds a list'):
        read_checkpoint('list.pth')


class Chain:
    """A call of a function that is itself the result of a call."""

    def __reduce__(self):
        return getattr, (str, 'format')


class Evaluated:
    def __reduce__(self):
        return eval, ("open('hacked', 'w')",)


def zip_bomb(path):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
        file.writestr('a/data.pkl', bytes(50_000_000))
        file.writestr('a/version', '3')


HOSTILE = {
    'a call': (lambda path: torch.save(Attack(), path), 'needs (posix|nt).system, which is code and not weights'),
    'in meta': (
        lambda path: torch.save(dict(state_dict={}, meta=dict(cfg=Evaluated())), path),
        'needs [a-z_.]*eval, which is code and not weights, and was not loaded',
    ),
    'getattr': (lambda path: torch.save(dict(a=Chain()), path), 'was not loaded|is corrupt'),
    'legacy format': (
        lambda path: torch.save(Attack(), path, _use_new_zipfile_serialization=False),
        'needs (posix|nt).system',
    ),
    'plain pickle': (lambda path: Path(path).write_bytes(pickle.dumps(Attack())), 'was not loaded|is corrupt'),
    'a module': (lambda path: torch.save(torch.nn.Linear(1, 1), path), 'needs torch.nn.modules.linear.Linear'),
    'a zip bomb': (zip_bomb, r'is corrupt or truncated: its \d+ bytes would unpack to 50000001'),
    'another zip': (
        lambda path: shutil.make_archive(path[:-4], 'zip', '.') and os.rename(path[:-4] + '.zip', path),
        'is corrupt',
    ),
}


@pytest.mark.skipif(not SAFE_LOADING, reason='torch before 2.5')
@pytest.mark.parametrize('kind', HOSTILE)
def test_hostile_files_are_refused_in_one_line(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    make, message = HOSTILE[kind]
    make('a.pth')
    with pytest.raises(UserError, match=message) as error:
        read_checkpoint('a.pth')
    assert len(str(error.value).splitlines()) == 1 and str(error.value).startswith('checkpoint a.pth ')
    assert not (tmp_path / 'hacked').exists()


def test_trusted_files_are_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('mixdet.compat.checkpoints._trusted', True)
    torch.save(dict(state_dict={}, meta=Evaluated()), 'a.pth')
    read_checkpoint('a.pth')
    assert (tmp_path / 'hacked').exists()


def test_a_checkpoint_of_another_model_is_refused(saved):
    checkpoint = read_checkpoint(saved)
    with pytest.raises(UserError, match=r'is not of this model: \d+ of its \d+ weights are missing, such as backbone'):
        check_fits(checkpoint, tiny_detector(kernel_sizes=(3, 5)), saved)
    with pytest.raises(UserError, match=r'weights have another shape, such as .* for '):
        check_fits(checkpoint, tiny_detector(kernel_sizes=5), saved)


def test_pretrained_parts_are_checked(saved, tmp_path):
    def start_from(checkpoint, **init_cfg):
        model = tiny_detector()
        model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint), **init_cfg)
        check_pretrained(model)

    backbone = {
        k[len('backbone.') :]: v for k, v in read_checkpoint(saved)['state_dict'].items() if k[:8] == 'backbone'
    }
    torch.save(backbone, tmp_path / 'backbone.pth')
    start_from(tmp_path / 'backbone.pth')
    start_from(saved, prefix='backbone')
    with pytest.raises(UserError, match=r'model.backbone.init_cfg: .* has none of the \d+ weights of MobileNetV2'):
        start_from(saved)
    with pytest.raises(UserError, match='gone.pth does not exist'):
        start_from(tmp_path / 'gone.pth')


def test_another_number_of_classes_is_related(saved):
    checkpoint = read_checkpoint(saved)
    check_related(checkpoint, tiny_detector(kernel_sizes=5), saved, 'load_from')
    with pytest.raises(UserError, match='load_from: checkpoint .* has none of the .* weights of Linear'):
        check_related(checkpoint, torch.nn.Linear(2, 2), saved, 'load_from')
