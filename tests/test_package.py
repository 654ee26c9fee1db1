"""The wheel holds what mim and `mixdet::` bases look for."""

import os
import subprocess
import sys
import zipfile

import pytest
from helpers import ROOT

from mixdet import __version__


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    files = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split('\0')
    if not any(files):
        pytest.skip('needs a git checkout')
    for name in filter(None, files):
        target = folder / 'source' / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', str(folder), '.']
    subprocess.run(command, cwd=folder / 'source', check=True)
    (path,) = folder.glob('*.whl')
    return path


def test_contents(wheel):
    assert wheel.name == f'mixdet-{__version__}-py3-none-any.whl'
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ('configs', 'tools'):
        for path in (ROOT / folder).rglob('*'):
            if path.is_file() and '__pycache__' not in path.parts:
                assert f'mixdet/.mim/{path.relative_to(ROOT)}' in names
    assert 'mixdet/.mim/model-index.yml' in names
    for path in (ROOT / 'mixdet').glob('**/templates/*'):
        assert str(path.relative_to(ROOT)) in names
    assert not any(name.startswith(('tests/', 'docs/')) or '__pycache__' in name for name in names)
    metadata = zipfile.ZipFile(wheel).read(f'mixdet-{__version__}.dist-info/METADATA').decode()
    required = [line for line in metadata.splitlines() if line.startswith('Requires-Dist') and 'extra' not in line]
    assert not any(name in line for line in required for name in ('torch', 'mmcv', 'mmdet', 'mmengine'))
    assert 'License: Apache-2.0' in metadata and 'License-File: LICENSE' in metadata


def test_configs_resolve_from_the_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / 'site')
    (tmp_path / 'c.py').write_text("_base_ = 'mixdet::ssdlite_mixnet/ssdlite_mixnet-l_8xb24-600e_coco.py'\n")
    code = (
        'import mixdet; from mmengine import Config;print(mixdet.__file__, Config.fromfile("c.py").model.backbone.arch)'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(tmp_path / 'site')},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(tmp_path / 'site/mixdet/__init__.py'), 'l'], done.stderr
