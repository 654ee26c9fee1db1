import pytest

from mixdet.engine.config import load_config
from mixdet.errors import UserError


def test_unreadable_configs_are_named(tmp_path):
    with pytest.raises(UserError, match='config nowhere.py does not exist'):
        load_config('nowhere.py')
    for text, reason in (('a = (', 'SyntaxError'), ("_base_ = './gone.py'", 'gone.py'), ('1 / 0', 'ZeroDivisionError')):
        (tmp_path / 'c.py').write_text(text)
        with pytest.raises(UserError, match=f'c.py cannot be read: .*{reason}'):
            load_config(str(tmp_path / 'c.py'))
