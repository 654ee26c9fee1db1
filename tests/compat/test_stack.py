import os
import re
import subprocess
import sys

import pytest
from helpers import ROOT

from mixdet.compat import stack


def fake(folder, **versions):
    """Packages that hold nothing but a version."""
    for name, version in versions.items():
        (folder / name).mkdir()
        (folder / name / '__init__.py').write_text('')
        (folder / name / 'version.py').write_text(f"__version__ = '{version}'\n")
    return folder


def test_reads_versions_without_importing():
    assert stack.installed_version('torch').startswith('2.')
    assert stack.installed_version('no_such_package') is None
    code = (
        'import sys, importlib.util as u; spec = u.spec_from_file_location("stack", sys.argv[1]);'
        'm = u.module_from_spec(spec); spec.loader.exec_module(m); m.check_stack();'
        'print([n for n in ("torch", "mmcv", "mmdet", "mmengine") if n in sys.modules])'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(ROOT / 'mixdet/compat/stack.py')], capture_output=True, text=True
    )
    assert done.stdout.strip() == '[]', done.stderr


@pytest.mark.parametrize(
    ('versions', 'message'),
    [
        (
            dict(mmdet='3.2.0'),
            "mixdet needs mmdet>=3.3.0,<3.6, but 3.2.0 is installed, which is too old: pip install 'mmdet==3.3.0'",
        ),
        (dict(mmdet='4.0.0'), 'which is too new'),
        (
            dict(mmdet='3.3.0', mmcv='2.2.0'),
            'mixdet needs mmcv>=2.0.0,<2.2.0 with mmdet 3.3.0, but 2.2.0 is installed, which is too new: ',
        ),
        (dict(mmdet='3.5.1', mmcv='2.1.0'), 'mixdet needs mmcv>=2.2.0,<2.4'),
        (dict(mmengine='0.9.1'), "too old: pip install 'mmengine==0.10.7'"),
        (dict(torch='2.0.1+cu117'), 'mixdet needs torch>=2.1,<3, but 2.0.1+cu117 is installed, which is too old'),
        (dict(torch='2.1.2', numpy='2.2.6'), 'mixdet needs numpy>=1.26,<2 with torch 2.1.2, but 2.2.6 is installed'),
        (
            dict(torch='2.13.0', numpy='1.25.0'),
            'mixdet needs numpy>=1.26,<3, but 1.25.0 is installed, which is too old',
        ),
    ],
)
def test_wrong_versions_are_reported_in_one_line(tmp_path, versions, message):
    path = os.pathsep.join([str(fake(tmp_path, **versions)), str(ROOT)])
    done = subprocess.run(
        [sys.executable, '-c', 'import mixdet'], env={**os.environ, 'PYTHONPATH': path}, capture_output=True, text=True
    )
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and line.startswith('ImportError: ')
    # the cure depends on what is installed where the tests run
    line = re.sub('pip uninstall .+?, then: ', '', line)
    assert message in line or (fork_is_here() and message.partition('pip install')[0] in line)


def fork_is_here():
    return stack._is_installed('onedl-mmengine')


@pytest.mark.parametrize(
    ('name', 'cure'), [('mmdet', 'onedl-mmdetection==3.5.1'), ('mmengine', 'onedl-mmengine==0.10.12')]
)
def test_a_fork_is_not_replaced_by_upstream(monkeypatch, name, cure):
    versions = {'torch': '2.13.0', 'numpy': '2.2.6', 'mmengine': '0.10.12', 'mmcv': '2.3.6', 'mmdet': '3.5.1'}
    monkeypatch.setattr(stack, 'installed_version', (versions | {name: '0.9'}).get)
    monkeypatch.setattr(stack, '_is_installed', lambda name: name.startswith('onedl'))
    with pytest.raises(ImportError, match=rf"too old: pip install '{re.escape(cure)}'$"):
        stack.check_stack()


def test_another_distribution_of_the_package_is_to_be_uninstalled_first(monkeypatch):
    versions = {'mmdet': '3.3.0', 'mmcv': '2.2.0'}
    monkeypatch.setattr(stack, 'installed_version', lambda name: versions.get(name, '2.3.0'))
    monkeypatch.setattr(stack, 'MMENGINE', stack.Requirement('mmengine', '2', '3', 'mmengine'))
    monkeypatch.setattr(stack, '_is_installed', lambda name: name == 'mmcv')
    with pytest.raises(ImportError, match=r"too new: pip uninstall mmcv, then: pip install 'mmcv-lite==2\.1\.0'$"):
        stack.check_stack()


def test_older_pythons_are_refused(monkeypatch):
    monkeypatch.setattr(sys, 'version_info', (3, 9, 18))
    with pytest.raises(ImportError, match=r'^mixdet needs Python 3\.10 or newer, and this is '):
        stack.check_stack()


def test_versions_are_compared_by_their_numbers():
    assert stack.is_at_least('2.10.0+cpu', '2.9') and stack.is_at_least('2.6.0a0', '2.6')
    assert not stack.is_at_least('2.4.1', '2.5')


def test_reads_the_forks_versions(tmp_path, monkeypatch):
    fake(tmp_path, a_fork='')
    (tmp_path / 'a_fork/version.py').write_text(
        "from importlib.metadata import version\n__version__ = version('pytest')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert stack.installed_version('a_fork') == pytest.__version__


def test_missing_packages_are_reported_in_one_line(monkeypatch):
    monkeypatch.setattr(stack, 'find_spec', lambda name: None)
    with pytest.raises(
        ImportError, match=r"^mixdet needs torch, which is not installed: pip install 'torch==2\.13\.0'$"
    ):
        stack.check_stack()
