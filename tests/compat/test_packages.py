import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mixdet.compat import packages


def test_packages_are_found_without_pkg_resources():
    from mmengine.utils import package_utils

    assert packages.is_installed('mmdet') and packages.is_installed('json')
    assert not packages.is_installed('no-such-package')
    path = packages.get_installed_path('mmdet')
    assert path.endswith('mmdet') and packages.get_installed_path('pytest').endswith('pytest')
    with pytest.raises(packages.PackageNotFoundError):
        packages.get_installed_path('no-such-package')
    assert package_utils.get_installed_path is packages.get_installed_path


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
    done = subprocess.run([sys.executable, '-c', code, str(config)], capture_output=True, text=True)
    assert done.stdout.strip() == 'RetinaNet', done.stderr
