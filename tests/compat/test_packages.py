import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.config import Config

from mixdet.compat import packages


def run(code, *arguments):
    done = subprocess.run([sys.executable, '-c', code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_packages_are_found_without_pkg_resources():
    assert packages.is_installed('mmdet') and packages.is_installed('json')
    assert not packages.is_installed('no-such-package')
    assert packages.get_installed_path('mmdet') == str(packages._location('mmdet'))
    assert packages.get_installed_path('pytest').endswith('pytest')
    with pytest.raises(packages.PackageNotFoundError):
        packages.get_installed_path('no-such-package')


def test_a_distribution_may_name_its_module_otherwise(monkeypatch):
    class Distribution:
        def __init__(self, name):
            assert name == 'mmcv-full'

        def read_text(self, file):
            return {'top_level.txt': 'no_such_module\njson\n'}.get(file)

    monkeypatch.setattr(packages, 'distribution', Distribution)
    assert packages.get_installed_path('mmcv-full') == str(packages._location('json'))


@pytest.mark.skipif(find_spec('pkg_resources') is None, reason='setuptools 82 or later')
def test_the_path_is_that_of_pkg_resources():
    """In a process of its own: pkg_resources changes sys.modules."""
    ours, upstreams = run(
        'import mixdet; from mixdet.compat import packages; from mmengine.utils import package_utils;'
        'print(packages.get_installed_path("mmdet"), package_utils.get_installed_path("mmdet"))'
    )
    assert ours == upstreams


def test_an_editable_install_is_found_where_its_files_are(tmp_path, monkeypatch):
    """``pkg_resources`` names the folder of its metadata."""
    (tmp_path / 'checkout/edited').mkdir(parents=True)
    (tmp_path / 'checkout/edited/__init__.py').touch()
    (tmp_path / 'site/edited-1.0.dist-info').mkdir(parents=True)
    (tmp_path / 'site/edited-1.0.dist-info/METADATA').write_text('Metadata-Version: 2.1\nName: edited\nVersion: 1.0\n')
    for folder in ('site', 'checkout'):
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    assert packages.get_installed_path('edited') == str(tmp_path / 'checkout/edited')


def test_mixdets_configs_have_mmdets_scope(tmp_path):
    config = tmp_path / 'c.py'
    config.write_text("_base_ = 'mixdet::_base_/default_runtime.py'\n")
    path, scope = Config._get_cfg_path('mixdet::_base_/default_runtime.py', str(config))
    assert Path(path).name == 'default_runtime.py' and scope == 'mmdet'
    assert Config._get_cfg_path('other.py', str(config)) == (str(tmp_path / 'other.py'), None)


def test_mmdet_bases_resolve_without_pkg_resources(tmp_path):
    config = tmp_path / 'c.py'
    config.write_text("_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n")
    code = (
        'import sys; sys.modules["pkg_resources"] = None\n'
        'import importlib.util as u; real = u.find_spec\n'
        'u.find_spec = lambda name, *a: None if name == "pkg_resources" else real(name, *a)\n'
        'import mixdet; from mmengine.config import Config\n'
        'print(Config.fromfile(sys.argv[1]).model.type)'
    )
    assert run(code, config) == ['RetinaNet']
