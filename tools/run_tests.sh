#!/usr/bin/env bash
# Install mixdet with its test tools, lint, and run the tests in random order:
#   tools/run_tests.sh [--fast] [arguments of pytest]
# With --fast only the tests that are not marked as slow, without the linters.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=$(bash "$root/tools/install.sh" test | tail -n 1)
cd "$root"
# a peer for parity tests; without what it depends on, for torchvision would bring a torch of its own
"$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("timm") is None)' ||
    "$python" -m pip install -q --no-deps -c constraints.txt timm
if [ "${1:-}" = --fast ]; then
    shift
    set -- -m 'not slow' "$@"
else
    PYTHON=$python bash tools/lint.sh
fi
# a process for each of up to four cores, of one thread each
export OMP_NUM_THREADS=1
exec "$python" -m pytest -n auto --maxprocesses 4 --dist worksteal "$@"
