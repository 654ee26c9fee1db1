#!/usr/bin/env bash
# Install mixdet with its test tools, lint, and run the tests: tools/run_tests.sh [arguments of pytest]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=$(bash "$root/tools/install.sh" test | tail -n 1)
cd "$root"
# a peer for parity tests; without what it depends on, for torchvision would bring a torch of its own
"$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("timm") is None)' ||
    "$python" -m pip install -q --no-deps -c constraints.txt timm
PYTHON=$python bash tools/lint.sh
# a process for each of up to four cores, of one thread each
export OMP_NUM_THREADS=1
exec "$python" -m pytest -n auto --maxprocesses 4 --dist worksteal "$@"
