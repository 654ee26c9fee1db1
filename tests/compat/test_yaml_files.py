import os

import mmengine
import pytest
from mmengine.config import Config

from mixdet.engine.config import load_config
from mixdet.errors import UserError

CODE = (
    "!!python/object/apply:os.system ['touch hacked']",
    "!!python/object/new:os.system ['touch hacked']",
    '!!python/name:os.system',
    '!!python/module:os',
)


@pytest.mark.parametrize('code', CODE)
@pytest.mark.parametrize('suffix', ['yaml', 'yml'])
def test_no_code_is_run(tmp_path, monkeypatch, code, suffix):
    monkeypatch.chdir(tmp_path)
    name = f'a.{suffix}'
    (tmp_path / name).write_text(f'a: {code}\n')
    with pytest.raises(UserError, match=f'config {name} cannot be read: ConstructorError'):
        load_config(name)
    with pytest.raises(Exception, match='could not determine a constructor'):
        mmengine.load(name)
    assert os.listdir() == [name]


def test_what_mmengine_writes_is_read(tmp_path):
    content = dict(size=(1, (2, 3)), names=['a', 'b'], model=dict(type='X', lr=1e-3, on=True, none=None))
    Config(content).dump(tmp_path / 'a.yaml')
    assert load_config(str(tmp_path / 'a.yaml')).to_dict() == content
    assert mmengine.load(tmp_path / 'a.yaml')['size'] == (1, (2, 3))
