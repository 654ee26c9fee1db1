#!/usr/bin/env bash
# Runs the native operator's tests under AddressSanitizer and UndefinedBehaviorSanitizer; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/../.."
asan=$(${CXX:-c++} -print-file-name=libasan.so)
stdcxx=$(${CXX:-c++} -print-file-name=libstdc++.so)
# Python itself is not built for the leak check; libstdc++ must be there before the sanitizer looks for its symbols
export MIXDET_CXXFLAGS='-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined'
export ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$asan $stdcxx" OMP_NUM_THREADS=1
exec "${PYTHON:-python}" -m pytest -p no:cacheprovider tests/layers/test_native.py tests/layers/test_implementations.py \
    -k 'not compile and not export and not data_parallel and not cache and not padded' "$@"
