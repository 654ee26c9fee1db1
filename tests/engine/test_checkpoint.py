import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from helpers import tiny_detector

from mixdet.compat.checkpoints import SAFE_LOADING
from mixdet.engine.checkpoint import (
    check_fits,
    check_pretrained,
    check_related,
    incomplete,
    peek,
    read_checkpoint,
)
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
    for name, content in (('list', [1, 2]), ('dict', {1: torch.zeros(1)})):
        torch.save(content, 'other.pth')
        with pytest.raises(UserError, match=f'^checkpoint other.pth holds a {name}, not a dict of weights by name$'):
            read_checkpoint('other.pth')


class Chain:
    """A call of a function that is itself the result of a call."""

    def __reduce__(self):
        return getattr, (str, 'format')


class Evaluated:
    def __reduce__(self):
        return eval, ("open('hacked', 'w').close()",)


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


@pytest.mark.skipif(not SAFE_LOADING, reason='torch before 2.6')
@pytest.mark.parametrize('kind', HOSTILE)
def test_hostile_files_are_refused_in_one_line(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    make, message = HOSTILE[kind]
    make('a.pth')
    with pytest.raises(UserError, match=message) as error:
        read_checkpoint('a.pth')
    assert len(str(error.value).splitlines()) == 1 and str(error.value).startswith('checkpoint a.pth ')
    assert not (tmp_path / 'hacked').exists()


def test_files_may_unpack_to_twice_their_size(tmp_path):
    """More than that no file of torch's does, which are not compressed."""
    path = tmp_path / 'a.pth'
    noise = os.urandom(1000)

    def error_of(zeros):
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
            file.writestr('a', noise + bytes(zeros))
        with pytest.raises(UserError) as error:
            read_checkpoint(path)
        return str(error.value), path.stat().st_size

    packed = error_of(0)[1]
    for zeros in (packed // 2, packed * 3 // 2):
        message, size = error_of(zeros)
        assert ('would unpack to' in message) == (1000 + zeros > 2 * size), message


def test_tensors_that_fill_the_memory_once_they_are_copied_are_refused(tmp_path):
    """A view can repeat one number; copies of it, such as those in another precision, cannot."""
    one = torch.zeros(1, dtype=torch.float16)
    small, large = one.expand(10**6), one.expand(10**9, 10)
    knot = [small]
    knot.append(knot)
    torch.save(dict(state_dict=dict(a=small), others=knot), tmp_path / 'a.pth')
    assert read_checkpoint(tmp_path / 'a.pth')['state_dict']['a'].shape == (10**6,)
    for content in (dict(a=large), dict(optimizer=[dict(b=(large,))]), dict(a=[one.expand(2**26)] * 3)):
        torch.save(content, tmp_path / 'b.pth')
        with pytest.raises(UserError, match=r'b.pth of \d+ bytes would fill \d+ bytes of memory'):
            read_checkpoint(tmp_path / 'b.pth')


def test_a_peek_shows_the_structure(saved, tmp_path):
    """Also of a file with a damaged tensor, which only a whole read finds; a truncated file has no structure."""
    assert peek(saved)['meta'] == dict(epoch=1)
    assert set(peek(saved)['state_dict']) == set(read_checkpoint(saved)['state_dict'])
    content = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        place = content.index(archive.read(max(archive.infolist(), key=lambda record: record.file_size)))
    content[place] ^= 1
    saved.write_bytes(content)
    assert peek(saved)['meta'] == dict(epoch=1)
    with pytest.raises(UserError, match='a.pth is corrupt or truncated: .* has changed since it was written'):
        read_checkpoint(saved)
    saved.write_bytes(content[:-100])
    with pytest.raises(UserError, match='a.pth is corrupt'):
        peek(saved)
    zip_bomb(saved)
    with pytest.raises(UserError, match='would unpack to 50000001'):
        peek(saved)
    torch.save(dict(meta=dict(epoch=2)), saved, _use_new_zipfile_serialization=False)
    assert peek(saved)['meta'] == dict(epoch=2)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (dict(), None),
        (dict(meta=None), 'it holds weights only'),
        (dict(meta=[]), 'it holds weights only'),
        (dict(optimizer=None, message_hub=1), 'it has no message_hub and no optimizer'),
        (dict(meta=dict(epoch=1)), 'its meta has no iter'),
        (dict(meta=dict(iter='3')), 'its meta has no epoch and no iter'),
    ],
)
def test_what_a_training_cannot_resume_is_named(change, reason):
    whole = dict(state_dict={}, message_hub={}, optimizer={}, meta=dict(epoch=0, iter=3))
    assert incomplete({**whole, **change}) == reason


def test_trusted_files_are_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('mixdet.compat.checkpoints._trusted', True)
    torch.save(dict(state_dict={}, meta=Evaluated()), 'a.pth')
    read_checkpoint('a.pth')
    assert (tmp_path / 'hacked').exists()


def test_a_checkpoint_of_another_model_is_refused(saved):
    checkpoint = read_checkpoint(saved)
    names = [name for name in tiny_detector(kernel_sizes=(3, 5)).state_dict() if 'num_batches' not in name]
    missing = [name for name in names if name not in checkpoint['state_dict']]
    total = len(tiny_detector(kernel_sizes=(3, 5)).state_dict())
    with pytest.raises(UserError) as error:
        check_fits(checkpoint, tiny_detector(kernel_sizes=(3, 5)), saved)
    assert str(error.value) == (
        f'checkpoint {saved} is not of this model: {len(missing)} of its {total} weights are missing, such as '
        f'{missing[0]}; give the config it was trained with'
    )
    model = torch.nn.Conv2d(2, 3, 3)
    weights = dict(weight=torch.zeros(3, 2, 5, 5), bias=torch.zeros(3))
    with pytest.raises(UserError) as error:
        check_fits(weights, model, 'a.pth')
    assert str(error.value) == (
        'checkpoint a.pth is not of this model: 1 weights have another shape, such as weight (3, 2, 5, 5) for '
        '(3, 2, 3, 3); give the config it was trained with'
    )


def test_counters_of_batch_norm_may_be_missing(saved):
    weights = {name: value for name, value in read_checkpoint(saved)['state_dict'].items() if 'num_batches' not in name}
    check_fits(weights, tiny_detector(), saved)
    with pytest.raises(UserError, match='none of the 4 weights of BatchNorm2d, such as weight'):
        counter = dict(num_batches_tracked=torch.tensor(0))
        check_related(counter, torch.nn.BatchNorm2d(2), saved, 'load_from')


def test_pretrained_parts_are_checked(saved, tmp_path):
    def start_from(*init_cfgs):
        model = tiny_detector()
        model.backbone.init_cfg = list(init_cfgs) if len(init_cfgs) > 1 else init_cfgs[0]
        check_pretrained(model)

    def pretrained(checkpoint, **init_cfg):
        return dict(type='Pretrained', checkpoint=str(checkpoint), **init_cfg)

    backbone = {
        k[len('backbone.') :]: v for k, v in read_checkpoint(saved)['state_dict'].items() if k[:8] == 'backbone'
    }
    torch.save(backbone, tmp_path / 'backbone.pth')
    start_from(pretrained(tmp_path / 'backbone.pth'))
    start_from(pretrained(saved, prefix='backbone'))
    start_from(pretrained('https://example.com/a.pth'))  # MMEngine will download it
    start_from(dict(type='Kaiming', layer='Conv2d'))
    message = (
        r'^model.backbone.init_cfg: .* has none of the \d+ weights of MobileNetV2, such as stem.0.conv.weight; give'
    )
    with pytest.raises(UserError, match=message):
        start_from(pretrained(saved))
    with pytest.raises(UserError, match='such as bbox_head.stem.0.conv.weight; give'):
        start_from(pretrained(saved, prefix='bbox_head'))
    with pytest.raises(UserError, match='gone.pth does not exist'):
        start_from(dict(type='Kaiming', layer='Conv2d'), pretrained(tmp_path / 'gone.pth'))


def test_a_checkpoint_with_other_classes_is_related(saved):
    checkpoint = read_checkpoint(saved)
    check_related(checkpoint, tiny_detector(kernel_sizes=5), saved, 'load_from')
    check_related(checkpoint, torch.nn.ReLU(), saved, 'load_from')
    with pytest.raises(UserError, match='load_from: checkpoint .* has none of the 2 weights of Linear'):
        check_related(checkpoint, torch.nn.Linear(2, 2), saved, 'load_from')
