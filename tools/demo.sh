#!/usr/bin/env bash
# Install mixdet, draw the demo data, train SSDLite-MixNet-S on it and evaluate: 4 minutes on 2 CPU cores (README.md).
# Ends with the COCO table and a picture of predictions beside the ground truth: tools/demo.sh [arguments of train.py]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=$(bash "$root/tools/install.sh" | tail -n 1)
cd "$root"
exec "$python" tools/train.py configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py "$@"
