import subprocess
import sys

import pytest

from mixdet.compat import packages


def test_packages_are_found_without_pkg_resources():
    from mmengine.utils import package_utils

    assert packages.is_installed('mmdet') and packages.is_installed('json')
    assert not packages.is_installed('no-such-package')
    path = packages.get_installed_path('mmdet')
    assert path.endswith('mmdet') and packages.get_installed_path('pytest').endswith('pytest')
    with pytest.raises(packages.PackageNotFoundError):
        packages.get_installed_path('no-such-package')
    with_old_setuptools = pytest.importorskip('pkg_resources', exc_type=ImportError)
    assert with_old_setuptools and path == package_utils.get_installed_path('mmdet')


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
