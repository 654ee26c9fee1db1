#!/usr/bin/env bash
# Install mixdet and, where they are missing, MMDetection and PyTorch at the tested versions:
#   tools/install.sh [EXTRA ...]     extras of setup.py, such as test
# Uses the active environment if it has MMDetection already, and replaces nothing in it; else a virtual environment:
# MIXDET_VENV if that is set, else .venv. The last line printed is the Python to use.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

log() { echo "$@" >&2; }

if [ -z "${MIXDET_VENV:-}" ] &&
    python3 -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ("torch", "mmcv", "mmdet"))))'; then
    log "MMDetection is installed here already: adding mixdet to it"
    python=$(python3 -c 'import sys; print(sys.executable)')
    list=$(IFS=,; echo "$*")
    "$python" -m pip install -q -e ".${list:+[$list]}" >&2
else
    venv=${MIXDET_VENV:-$root/.venv}
    log "Installing into $venv"
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    python=$venv/bin/python
    # torch first, so that whatever else requires it finds it installed
    "$python" -m pip install -q -c constraints.txt torch setuptools >&2
    list=$(IFS=,; echo "lite${*:+,$*}")
    "$python" -m pip install -q -c constraints.txt -e ".[$list]" >&2
fi
"$python" -c 'import mixdet' >&2
echo "$python"
