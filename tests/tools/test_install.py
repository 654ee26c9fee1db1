"""tools/install.sh, with a Python that only notes what it is asked."""

import os
import subprocess

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
