"""tools/install.sh, with a Python that only notes what it is asked, or asks pip about a package index of the test's."""

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from helpers import ROOT

PYTHON = """#!/bin/sh
case "$*" in
    *version_info*) exit "$TOO_OLD" ;;
    *sys.executable*) echo "$0" ;;
    *'-m pip list'*) case "$*" in *-q*) ;; *) echo 'numpy==1.26.4' ;; esac ;;
    *'-m pip install'*)
        echo "$*" >>"$LOG"
        while [ "$1" != -c ]; do shift; done
        cat "$2" >>"$LOG"
        exit "$FAILS"
        ;;
    -V) echo 'Python 3.10.1' ;;
esac
"""


@pytest.fixture
def install(tmp_path):
    """Runs the script where MMDetection is installed: the result, and what pip was asked to do."""
    python = tmp_path / 'python3'
    python.write_text(PYTHON)
    python.chmod(0o755)
    log = tmp_path / 'log'

    def run(*extras, **settings):
        path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
        env = {**os.environ, 'PATH': path, 'LOG': str(log), 'TOO_OLD': '0', 'FAILS': '0', **settings}
        env.pop('MIXDET_VENV', None)
        done = subprocess.run(
            ['bash', str(ROOT / 'tools/install.sh'), *extras], env=env, capture_output=True, text=True, timeout=60
        )
        return done, log.read_text() if log.exists() else ''

    return run


def test_what_is_installed_constrains_pip(install):
    done, log = install('onnx', 'eval')
    assert done.returncode == 0 and done.stdout.endswith('/python3\n'), done.stderr
    request, constraint = log.splitlines()
    assert request.endswith('-e .[onnx,eval]') and constraint == 'numpy==1.26.4'


def test_an_extra_that_does_not_fit_is_refused_by_name(install):
    done, _ = install('onnx', FAILS='1')
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        'error: extras [onnx] do not fit the packages of this Python 3.10.1; an environment of their own has room for '
        'them: MIXDET_VENV=.venv tools/install.sh onnx'
    )


def test_an_older_python_is_refused_at_once(install):
    done, log = install(TOO_OLD='1')
    assert done.returncode == 2 and not log
    assert done.stderr.startswith('error: mixdet needs Python 3.10 or newer, and python3 is Python 3.10.1; put')


TORCH = re.search('^torch==(.+)$', (ROOT / 'constraints.txt').read_text(), re.MULTILINE)[1]
VENV_PYTHON = f"""#!/bin/sh
case "$*" in
    '-c import torch') exit 1 ;;
    *'-m pip index'*) exec {sys.executable} "$@" ;;
    *'-m pip install'*) echo "$*" >>"$LOG" ;;
esac
case "$*" in
    *'-m pip install'*torch*) exec {sys.executable} "$@" --no-deps --target "$SITE" ;;
esac
"""


def write_wheel(folder, name, version):
    """A package of that name and version in the simple index that ``folder`` is; it holds nothing."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    wheel = folder / name / f'{name}-{version}-py3-none-any.whl'
    info = f'{name}-{version}.dist-info'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr(f'{info}/METADATA', f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
        archive.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        archive.writestr(f'{info}/RECORD', '')
    links = [f'<a href="{path.name}">{path.name}</a>' for path in (folder / name).glob('*.whl')]
    (folder / name / 'index.html').write_text('<!DOCTYPE html>\n' + '\n'.join(links))


@pytest.fixture
def fresh_install(tmp_path):
    """Runs the script for a new environment, where pip knows only these versions of PyTorch: the result, pip's
    requests and what pip installed."""
    pytest.importorskip('pip')
    programs = tmp_path / 'programs'  # without nvidia-smi
    programs.mkdir()
    for name in ('bash', 'sh', 'dirname', 'uname', 'sed', 'grep', 'mktemp', 'rm', 'tail'):
        (programs / name).symlink_to(shutil.which(name))
    (programs / 'python3').symlink_to(sys.executable)
    python = tmp_path / 'venv/bin/python'
    python.parent.mkdir(parents=True)
    python.write_text(VENV_PYTHON)
    python.chmod(0o755)
    index, site, log = tmp_path / 'index', tmp_path / 'site', tmp_path / 'log'
    write_wheel(index, 'setuptools', '80.0')

    def run(*versions, **settings):
        for version in versions:
            write_wheel(index, 'torch', version)
        kept = {name: value for name, value in os.environ.items() if not name.startswith('PIP_')}
        kept |= dict(PATH=str(programs), PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL=index.as_uri())
        kept |= dict(MIXDET_VENV=str(tmp_path / 'venv'), LOG=str(log), SITE=str(site))
        done = subprocess.run(
            ['bash', str(ROOT / 'tools/install.sh')], env=kept | settings, capture_output=True, text=True, timeout=60
        )
        installed = sorted(path.name.removesuffix('.dist-info') for path in site.glob('torch*.dist-info'))
        return done, log.read_text().splitlines(), installed

    return run


def test_without_a_gpu_the_cpu_build_of_the_users_index_is_taken(fresh_install):
    done, requests, installed = fresh_install(TORCH, f'{TORCH}+cpu', f'{TORCH}+cu130')
    assert done.returncode == 0, done.stderr
    assert f'torch=={TORCH}+cpu' in requests[0] and installed == [f'torch-{TORCH}+cpu']
    assert '5 GB' not in done.stderr


def test_without_a_cpu_build_the_size_and_the_cure_are_named(fresh_install):
    done, requests, installed = fresh_install(TORCH, f'1{TORCH}+cpu', f'{TORCH}1+cpu')
    assert done.returncode == 0 and installed == [f'torch-{TORCH}'], done.stderr
    assert f' torch=={TORCH} ' in requests[0]
    assert '5 GB' in done.stderr and 'PIP_EXTRA_INDEX_URL' in done.stderr


@pytest.mark.parametrize('gpu', [False, True])
def test_with_a_gpu_or_a_wish_for_cuda_pip_chooses(fresh_install, tmp_path, gpu):
    settings = {} if gpu else dict(MIXDET_CUDA='1')
    if gpu:
        (tmp_path / 'programs/nvidia-smi').symlink_to('/bin/true')
    done, requests, installed = fresh_install(TORCH, f'{TORCH}+cpu', f'{TORCH}+cu130', **settings)
    assert f' torch=={TORCH} ' in requests[0] and installed == [f'torch-{TORCH}+cu130'], done.stderr
    assert '5 GB' not in done.stderr
