#!/usr/bin/env bash
# Lint, check formatting, spelling and types: tools/lint.sh
# PYTHON names the Python whose tools are used, as installed by the extra "test" (default: python).
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$("${PYTHON:-python}" -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$PATH
ruff check .
ruff format --check .
codespell
clang-format --dry-run --Werror mixdet/layers/csrc/*
shellcheck .ci/run tools/*.sh tools/analysis_tools/*.sh
mypy
