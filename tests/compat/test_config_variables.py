import pytest
from mmengine.config import Config
from mmengine.config import config as mmengine_config

from mixdet.compat.config_variables import variables_set

BASE = """
epochs, lr = 12, 0.1
pipeline = [dict(type='Load'), dict(type='Resize', scale=(4, 4))]
sizes = (1, dict(side=2))
train_cfg = dict(max_epochs=epochs)
loader = dict(pipeline=pipeline, sizes=sizes)
"""


@pytest.fixture
def read(tmp_path):
    """Writes files by name and reads the first with the options."""

    def write_and_read(options=None, **files):
        for name, text in files.items():
            (tmp_path / name.replace('_', '.', 1)).write_text(text)
        with variables_set(options or {}):
            return Config.fromfile(tmp_path / next(iter(files)).replace('_', '.', 1))

    return write_and_read


def test_what_is_computed_from_a_variable_follows_through_the_chain(read):
    child = "_base_ = './base.py'\nhalf = _base_.epochs // 2\nmodel = dict(last={{_base_.epochs}})\n"
    cfg = read(dict(epochs=50), child_py=child, base_py=BASE)
    assert (cfg.epochs, cfg.train_cfg.max_epochs, cfg.half, cfg.model.last, cfg.lr) == (50, 50, 25, 50, 0.1)


def test_a_variable_keeps_its_value_wherever_it_is_assigned(read):
    child = (
        "_base_ = './base.py'\nepochs = 3\ntrain_cfg = dict(val_interval=epochs)\nepochs *= 2\nmodel = dict(a=epochs)\n"
    )
    cfg = read(dict(epochs=50), child_py=child, base_py=BASE)
    assert cfg.train_cfg == dict(max_epochs=50, val_interval=50) and cfg.model.a == 50


@pytest.mark.parametrize(
    'statement',
    [
        'x = y = 1',
        '(x, y), z = (1, 2), 3',
        '[x, *y] = 1, 2',
        'x: int = 1',
        'if True:\n    x = 1',
        'try:\n    x = 1 / 0\nexcept ZeroDivisionError:\n    x = 2\nfinally:\n    y = 3',
        'for x in range(3):\n    y = x',
    ],
)
def test_every_way_to_assign(read, statement):
    cfg = read(dict(x='new'), child_py=f'{statement}\nmodel = dict(used=x)\n')
    assert cfg.x == cfg.model.used == 'new'


def test_variables_of_functions_are_their_own(read):
    cfg = read(dict(x=5), child_py='x = 1\ndef double(x):\n    x = 2 * x\n    return x\nmodel = dict(a=double(x))\n')
    assert cfg.model.a == 10


def test_a_place_inside_a_variable(read):
    options = {'pipeline.1.scale': (8, 8), 'sizes.1.side': 7, 'pipeline.5.scale': 1, 'sizes.0.side': 1}
    cfg = read(options, child_py=BASE)
    assert cfg.loader.pipeline == [dict(type='Load'), dict(type='Resize', scale=(8, 8))]
    assert cfg.loader.sizes == (1, dict(side=7))  # where a variable has no such place, it is left alone
    # the base's shorter pipeline does not have it
    child = "_base_ = './base.py'\npipeline = [*_base_.pipeline, dict(type='Pack')]\nloader = dict(pipeline=pipeline)\n"
    cfg = read({'pipeline.2.keys': 3}, child_py=child, base_py=BASE)
    assert cfg.loader.pipeline[2] == dict(type='Pack', keys=3)


def test_a_place_inside_a_variable_that_is_left_open(read):
    cfg = read({'args.backend': 'local'}, child_py='args = None\nmodel = dict(args=args)\n')
    assert cfg.model.args == dict(backend='local')


def test_configs_in_json(read):
    child = "_base_ = './base.json'\ntrain_cfg = dict(max_epochs=_base_.epochs)\n"
    cfg = read(dict(epochs=50), child_py=child, base_json='{"epochs": 12}')
    assert cfg.train_cfg.max_epochs == 50


def test_lazy_configs(read):
    child = (
        'from mmengine.config import read_base\nfrom mmengine.dataset import DefaultSampler\n'
        'with read_base():\n    from .base import *\n'
        "train_cfg.update(last=epochs)\nmodel = dict(type=DefaultSampler, scale=pipeline[1]['scale'])\n"
    )
    cfg = read({'epochs': 50, 'pipeline.1.scale': (8, 8)}, child_py=child, base_py=BASE)
    assert cfg.train_cfg == dict(max_epochs=50, last=50) and cfg.model.scale == (8, 8)
    assert cfg.model.type.__name__ == 'DefaultSampler'


def test_mmengine_is_left_as_it_was(read):
    names = ('RemoveAssignFromAST', 'ImportTransformer', 'load')
    before = [getattr(mmengine_config, name) for name in names]
    with pytest.raises(ZeroDivisionError):
        read(dict(x=0), child_py='x = 1\ny = 1 / x\n')
    assert [getattr(mmengine_config, name) for name in names] == before
    assert read(child_py='x = 1\ny = 1 / x\n').y == 1
