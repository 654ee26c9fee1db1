#!/usr/bin/env bash
# Install mixdet and, where they are missing, MMDetection and PyTorch at the tested versions:
#   tools/install.sh [EXTRA ...]     extras of setup.py, such as test
# Uses the active environment if it has MMDetection already, and replaces nothing in it; else a virtual environment:
# MIXDET_VENV if that is set, else .venv. The last line printed is the Python to use.
# On Linux without an NVIDIA GPU it takes PyTorch's CPU build if pip's settings name an index that has it, and else says
# how to avoid the CUDA build; MIXDET_CUDA=1 leaves the choice to pip.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

log() { echo "$@" >&2; }

fail() {
    log "error: $*"
    exit 2
}

python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "mixdet needs Python 3.10 or newer, and python3 is $(python3 -V); put a newer one first on the PATH"

# What to ask pip for. The default index has only CUDA builds for Linux; pip's settings may name one with CPU builds.
torch_requirement() {
    local tested
    tested=$(sed -n 's/^torch==//p' constraints.txt)
    if [ "$(uname -s)" != Linux ] || [ "${MIXDET_CUDA:-}" = 1 ] || command -v nvidia-smi >/dev/null; then
        echo "torch==$tested"
    elif "$1" -m pip index versions torch 2>/dev/null | grep '^Available' | grep -wF "$tested+cpu" >/dev/null; then
        echo "torch==$tested+cpu"
    else
        log "No GPU was found, but pip finds only PyTorch's build for CUDA, which takes 5 GB. To avoid it, interrupt this,"
        log "set PIP_EXTRA_INDEX_URL to PyTorch's CPU index (pytorch.org/get-started has its address), and start again."
        echo "torch==$tested"
    fi
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [ -z "${MIXDET_VENV:-}" ] &&
    python3 -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ("torch", "mmcv", "mmdet"))))'; then
    log "MMDetection is installed here already: adding mixdet to it"
    python=$(python3 -c 'import sys; print(sys.executable)')
    "$python" -m pip --version >/dev/null 2>&1 || fail "$python has no pip; with uv: uv pip install pip"
    list=$(IFS=,; echo "$*")
    # what an extra requires may be newer than what is here; pip must then take an older version of the extra
    "$python" -m pip list --format=freeze --exclude mixdet --exclude-editable 2>/dev/null >"$scratch/installed.txt"
    "$python" -m pip install -q -c "$scratch/installed.txt" -e ".${list:+[$list]}" >&2 ||
        fail "extras [$list] do not fit the packages of this $("$python" -V); an environment of their own has room for" \
            "them: MIXDET_VENV=.venv tools/install.sh $*"
else
    venv=${MIXDET_VENV:-$root/.venv}
    log "Installing into $venv"
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    python=$venv/bin/python
    # torch first, so that whatever else requires it finds it installed
    if ! "$python" -c 'import torch' 2>/dev/null; then
        "$python" -m pip install -q -c constraints.txt "$(torch_requirement "$python")" setuptools >&2
    fi
    list=$(IFS=,; echo "lite${*:+,$*}")
    "$python" -m pip install -q -c constraints.txt -e ".[$list]" >&2
fi
"$python" -c 'import mixdet' >&2
echo "$python"
