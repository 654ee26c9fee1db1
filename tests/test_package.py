"""The wheel holds the package, and what mim and `mixdet::` bases look for."""

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import yaml
from helpers import ROOT

from mixdet import __version__

pytestmark = pytest.mark.slow


def tracked_files():
    """Paths of the checkout's files, relative to its root, without what git ignores."""
    listing = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout
    files = [name for name in listing.split('\0') if name and (ROOT / name).is_file()]
    if not files:
        pytest.skip('needs a git checkout')
    return files


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of the tracked files, as in a fresh clone."""
    folder = tmp_path_factory.mktemp('source')
    for name in tracked_files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
    return build_wheel(source, tmp_path_factory.mktemp('wheel'))


def build_wheel(source, folder):
    command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', str(folder)]
    subprocess.run([*command, str(source)], check=True)
    (path,) = folder.glob('*.whl')
    return path


def test_contents(wheel):
    assert wheel.name == f'mixdet-{__version__}-py3-none-any.whl'
    expected = set()
    for name in tracked_files():
        if name.startswith('mixdet/'):  # modules, csrc, templates, py.typed
            expected.add(name)
        elif name.startswith(('configs/', 'tools/')) or name == 'model-index.yml':
            expected.add(f'mixdet/.mim/{name}')
    assert {'mixdet/py.typed', 'mixdet/layers/csrc/mixconv.cpp', 'mixdet/report/templates/run.html'} <= expected
    info = f'mixdet-{__version__}.dist-info/'
    content = zipfile.ZipFile(wheel)
    assert {name for name in content.namelist() if not name.startswith(info)} == expected
    assert content.read(f'{info}licenses/LICENSE') == (ROOT / 'LICENSE').read_bytes()


def test_an_editable_install_wins_over_a_clone_beside_the_script(source, tmp_path):
    """The clone is named as the package, and a script's own folder comes first on its path."""
    clone = tmp_path / 'mixdet'
    shutil.copytree(source, clone)
    command = [sys.executable, '-c', f'from setuptools import build_meta; build_meta.build_editable({str(tmp_path)!r})']
    subprocess.run(command, cwd=clone, check=True, capture_output=True)
    (installed,) = tmp_path.glob('*.whl')
    zipfile.ZipFile(installed).extractall(tmp_path / 'site')
    assert (clone / 'mixdet/.mim/configs').resolve() == clone / 'configs'  # what mim and `mixdet::` bases look for
    (tmp_path / 'script.py').write_text(
        # without the mixdet that this environment has
        'import site, sys\nfrom pathlib import Path\n'
        'sys.path[:] = [path for path in sys.path if not Path(path, "mixdet/__init__.py").is_file()]\n'
        f'site.addsitedir({str(tmp_path / "site")!r})\n'
        'from mixdet import Detector, compat\nimport mixdet\nprint(mixdet.__file__)\n'
    )
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    command = [sys.executable, '-W', 'ignore', str(tmp_path / 'script.py')]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(clone / 'mixdet/__init__.py'), done.stderr


def test_names_that_are_imported_on_first_use_are_listed():
    import mixdet

    assert {'Detector', 'Detection', '__version__', 'registry'} <= set(dir(mixdet))


def test_a_source_distribution_builds_the_same_wheel(source, wheel, tmp_path):
    command = [sys.executable, '-c', f'from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})']
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    again = build_wheel(tmp_path / f'mixdet-{__version__}.tar.gz', tmp_path)
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_metadata(wheel):
    lines = zipfile.ZipFile(wheel).read(f'mixdet-{__version__}.dist-info/METADATA').decode().splitlines()
    required = [line for line in lines if line.startswith('Requires-Dist') and 'extra' not in line]
    assert not any(name in line for line in required for name in ('torch', 'mmcv', 'mmdet', 'mmengine'))
    assert 'License: Apache-2.0' in lines and 'License-File: LICENSE' in lines
    links = dict(line[len('Project-URL: ') :].split(', ') for line in lines if line.startswith('Project-URL: '))
    assert set(links) == {'Documentation', 'Issues', 'Changelog'}
    (home,) = (line[len('Home-page: ') :] for line in lines if line.startswith('Home-page: '))
    assert all(link.startswith(f'{home}/') for link in links.values())
    for name in ('Documentation', 'Changelog'):
        assert (ROOT / links[name].partition('/main/')[2]).exists()


def test_configs_resolve_from_the_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / 'site')
    (tmp_path / 'c.py').write_text("_base_ = 'mixdet::ssdlite_mixnet/ssdlite_mixnet-l_8xb24-600e_coco.py'\n")
    code = (
        'import mixdet; from mmengine import Config\n'
        'from mmengine.registry import MODELS, VISUALIZERS, init_default_scope\n'
        'cfg = Config.fromfile("c.py"); print(mixdet.__file__, cfg.model.backbone.arch)\n'
        # MMDetection's classes, which the scope of a base decides
        'init_default_scope(cfg.default_scope); VISUALIZERS.build(cfg.visualizer)\n'
        'MODELS.build(cfg.model.data_preprocessor)'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(tmp_path / 'site')},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / 'site/mixdet/__init__.py'), 'l'], done.stderr


def test_the_version_is_the_same_everywhere():
    changelog = (ROOT / 'CHANGELOG.md').read_text()
    version, date = re.search(r'^## (\d\S*) - (\d{4}-\d\d-\d\d)$', changelog, re.MULTILINE).groups()
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert version == citation['version'] == __version__
    assert str(citation['date-released']) == date
