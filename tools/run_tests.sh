#!/usr/bin/env bash
# Install mixdet with its test tools, lint, and run the tests: tools/run_tests.sh [arguments of pytest]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=$(bash "$root/tools/install.sh" test | tail -n 1)
cd "$root"
"$python" -m ruff check .
"$python" -m ruff format --check .
exec "$python" -m pytest "$@"
