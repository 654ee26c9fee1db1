import pytest
from mmengine.config import Config

from mixdet.errors import UserError
from mixdet.swap import write_config
from mixdet.swap.writing import difference


def test_the_difference_of_two_configs():
    old = dict(a=1, b=dict(c=2, d=[1, 2]), e=dict(type='X', f=1), g=dict(h=1, i=2))
    new = dict(a=1, b=dict(c=2, d=[1, 3]), e=dict(type='Y', f=1), g=dict(i=3), j=(4,))
    assert difference(old, new) == dict(
        b=dict(d=[1, 3]),
        e=dict(_delete_=True, type='Y', f=1),  # of another class
        g=dict(_delete_=True, i=3),  # a key is gone
        j=(4,),
    )
    assert difference(old, old) == {} and difference(old, {}) is None
    new['b']['d'].append(5)
    assert difference(old, new)['b']['d'] is not new['b']['d']


@pytest.fixture
def swapped(tmp_path):
    """Writes a config with another backbone from a base of the given text; the file, and whether it inherits."""

    def write(text, name='base.py'):
        (tmp_path / name).write_text(text)
        original = Config.fromfile(tmp_path / name)
        cfg = Config(original.to_dict())
        cfg.model.backbone = dict(type='mixdet.MixNet', arch='s')
        cfg.model.neck.in_channels = [1, 2]
        (tmp_path / 'out').mkdir(exist_ok=True)
        out = tmp_path / 'out/new.py'
        return out, write_config(out, cfg, tmp_path / name, original, ['a note'])

    return write


BASE = (
    "model = dict(backbone=dict(type='ResNet', depth=50), neck=dict(in_channels=[3, 4], out_channels=5))\nepochs = 3\n"
)


def test_a_short_file_that_inherits(swapped):
    out, inherits = swapped(BASE)
    lines = out.read_text().splitlines()
    assert inherits and lines[:2] == ['# a note', "_base_ = '../base.py'"] and len(lines) < 12
    cfg = Config.fromfile(out)
    assert cfg.model.backbone == dict(type='mixdet.MixNet', arch='s') and cfg.epochs == 3
    assert cfg.model.neck == dict(in_channels=[1, 2], out_channels=5)


def test_a_base_in_the_lazy_style_is_written_out(swapped):
    out, inherits = swapped('from mmengine.dataset import DefaultSampler\n' + BASE)
    assert not inherits and '_base_' not in out.read_text()
    assert Config.fromfile(out).model.backbone.type == 'mixdet.MixNet'


@pytest.mark.parametrize('name', ['{{$HOME:x}}.py', '{{ fileDirname }}.py', 'two\nlines.py'])
def test_names_with_braces_or_lines(tmp_path, name):
    """Of the base's file, its classes and in the comments, whichever way it is written."""
    folder = tmp_path / name.removesuffix('.py')
    folder.mkdir()
    (folder / 'base.py').write_text(BASE)
    original = Config.fromfile(folder / 'base.py')
    for number, base in enumerate((folder / 'base.py', tmp_path / 'gone.py')):
        out = tmp_path / f'out{number}.py'
        cfg = Config(dict(original.to_dict(), classes=(name,)))
        assert write_config(out, cfg, base, original, [f'{name} with mixnet-s']) == (number == 0)
        assert Config.fromfile(out).classes == (name,) and Config.fromfile(out).epochs == 3


def test_no_file_is_replaced(tmp_path):
    (tmp_path / 'out.py').write_text('mine')
    for base, original in ((tmp_path / 'base.py', Config(dict(a=1))), (tmp_path / 'base.py', Config(dict(b=1)))):
        with pytest.raises(UserError, match='out.py exists already'):
            write_config(tmp_path / 'out.py', Config(dict(a=2)), base, original, [])
    assert (tmp_path / 'out.py').read_text() == 'mine'
