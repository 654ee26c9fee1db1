"""What pip would change: dry runs over the packages that users have.

Run with MIXDET_RESOLVER=1, for it asks a package index; needs uv.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ('3.10', '3.11', '3.12', '3.13')
EXTRAS = ('', 'onnx', 'openvino', 'ncnn', 'eval', 'weights', 'test')
TORCH21 = {'torch': '2.1.2', 'numpy': '1.26.4', 'setuptools': '69.5.1', 'opencv-python': '4.11.0.86'}
UPSTREAM = {'mmengine': '0.10.7', 'mmdet': '3.3.0'}
COMMON = {'matplotlib': '3.8.4', 'pycocotools': '2.0.8', 'pillow': '10.4.0', 'protobuf': '4.25.3', 'pyyaml': '6.0.1'}
STACKS = {
    'torch 2.1, NumPy 1.26, mmcv-lite': {**TORCH21, **UPSTREAM, **COMMON, 'mmcv-lite': '2.1.0'},
    'torch 2.1, NumPy 1.26, compiled mmcv': {**TORCH21, **UPSTREAM, **COMMON, 'mmcv': '2.1.0'},
    'forks': {
        **{'torch': '2.13.0', 'numpy': '2.2.6', 'opencv-python': '4.12.0.88', 'onedl-mmengine': '0.10.12'},
        **{'onedl-mmcv': '2.3.6', 'onedl-mmdetection': '3.5.1', 'matplotlib': '3.10.1', 'pycocotools': '2.0.10'},
    },
}

pytestmark = pytest.mark.skipif(os.environ.get('MIXDET_RESOLVER') != '1', reason='asks a package index')


def resolve(folder, python, *arguments):
    """The packages that installing ``arguments`` into ``python`` would change, as uv's dry run reports them."""
    command = ['uv', 'pip', 'install', '--dry-run', '--python', str(python), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize('python', PYTHONS)
def test_constraints_can_be_met(tmp_path, python):
    command = ['uv', 'pip', 'compile', '-q', '--python-version', python, '-c', str(ROOT / 'constraints.txt')]
    command += ['--extra', 'lite', '--extra', 'test', '--no-header', '-o', str(tmp_path / 'out.txt'), 'setup.py']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def stack(request, tmp_path):
    """An environment that says it has these packages; nothing of them is there but their names and versions."""
    subprocess.run(['uv', 'venv', '-q', '--python', sys.executable, str(tmp_path / 'venv')], check=True)
    (site,) = (tmp_path / 'venv/lib').glob('*/site-packages')
    for name, version in request.param.items():
        folder = site / f'{name.replace("-", "_")}-{version}.dist-info'
        folder.mkdir()
        (folder / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
        (folder / 'RECORD').touch()
        (folder / 'INSTALLER').write_text('pip\n')
    installed = tmp_path / 'installed.txt'
    installed.write_text(''.join(f'{name}=={version}\n' for name, version in request.param.items()))
    return tmp_path / 'venv', request.param, installed


@pytest.mark.parametrize('extra', EXTRAS)
@pytest.mark.parametrize('stack', STACKS.values(), ids=STACKS, indirect=True)
def test_nothing_of_the_users_is_replaced(stack, tmp_path, extra):
    """As tools/install.sh asks for it: with what is installed as constraints."""
    environment, packages, installed = stack
    wish = f'{ROOT}[{extra}]' if extra else str(ROOT)
    status, report = resolve(tmp_path, environment / 'bin/python', '-c', str(installed), wish)
    assert status == 0, report
    removed = {line.split()[1].partition('==')[0] for line in report.splitlines() if line.startswith(' - ')}
    assert not removed & set(packages), report


@pytest.mark.parametrize('stack', STACKS.values(), ids=STACKS, indirect=True)
def test_the_package_alone_needs_no_constraints(stack, tmp_path):
    status, report = resolve(tmp_path, stack[0] / 'bin/python', str(ROOT))
    assert status == 0 and ' - ' not in report, report
