import sys

import pytest
from mmengine.config import Config

from mixdet.engine.config import config_text, load_config
from mixdet.errors import UserError


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('a = (', 'SyntaxError: '),
        ("_base_ = './gone.py'", 'FileNotFoundError: '),
        ('1 / 0', 'ZeroDivisionError: division by zero'),
        ('raise MemoryError', 'MemoryError: MemoryError'),
    ],
)
def test_unreadable_configs_are_named(tmp_path, text, reason):
    path = tmp_path / 'c.py'
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_config(str(path))
    assert str(error.value).startswith(f'config {path} cannot be read: {reason}')
    assert len(str(error.value).splitlines()) == 1


def test_a_missing_config_is_named():
    with pytest.raises(UserError, match='^config nowhere.py does not exist; check the path$'):
        load_config('nowhere.py')


def test_custom_imports_are_imported_unless_it_is_declined(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / 'imported_by_a_config.py').write_text('')
    path = tmp_path / 'c.py'
    path.write_text("custom_imports = dict(imports=['imported_by_a_config'], allow_failed_imports=False)\nseed = 3\n")
    assert load_config(str(path), import_custom_modules=False).seed == 3
    assert 'imported_by_a_config' not in sys.modules
    assert load_config(str(path)).seed == 3
    assert sys.modules.pop('imported_by_a_config').__file__ == str(tmp_path / 'imported_by_a_config.py')


@pytest.mark.parametrize(
    'name', ['{{$HOME:x}}', "{{'$HOME:x'}}", '{{ fileDirname }}', '{{_base_.a}}', '{{{{', '{{{$GONE:}}}']
)
def test_braces_mean_themselves(tmp_path, name):
    """MMEngine would replace them, wherever they stand in the file."""
    path = tmp_path / 'c.py'
    values = dict(
        classes=(name, f'\\{name}'), nested=dict(data_root=f'/data/{name}/', keys={name.replace("'", ''): 1})
    )  # MMEngine does not quote keys
    text = config_text(Config(values), f'# {name}\n')
    assert '{{' not in text
    path.write_text(text)
    assert Config.fromfile(path).to_dict() == values
