#!/usr/bin/env bash
# Train with several processes: one per GPU, or on CPUs if there is none:
#   tools/dist_train.sh CONFIG NUM_PROCESSES [arguments of tools/train.py]
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: tools/dist_train.sh CONFIG NUM_PROCESSES [arguments of tools/train.py]" >&2
    exit 2
fi
config=$1 processes=$2
shift 2
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$processes" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
