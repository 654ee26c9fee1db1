#!/usr/bin/env bash
# Train with several processes: one per GPU, or on CPUs if there is none:
#   tools/dist_train.sh CONFIG NUM_PROCESSES [arguments of tools/train.py]
# With MAX_RESTARTS=3 and --resume, all processes are started again when one is lost, up to three times.
# On several machines run it on each, with NNODES=2 MASTER_ADDR=HOST PORT=29500, and NODE_RANK=0 or 1 without MAX_RESTARTS.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: [MAX_RESTARTS=0] [NNODES=1] [NODE_RANK=0] [MASTER_ADDR=127.0.0.1] [PORT=29500]" \
        "tools/dist_train.sh CONFIG NUM_PROCESSES [arguments of tools/train.py]" >&2
    exit 2
fi
config=$1 processes=$2
shift 2
nodes=${NNODES:-1} restarts=${MAX_RESTARTS:-0} address=${MASTER_ADDR:-127.0.0.1} port=${PORT:-29500}
if [ "$restarts" = 0 ]; then # all machines are there, and stay
    rendezvous=(--nnodes="$nodes" --node_rank="${NODE_RANK:-0}" --master_addr="$address" --master_port="$port")
elif [ "$nodes" = 1 ]; then
    rendezvous=(--standalone --max-restarts="$restarts")
else # a machine may leave and come back
    rendezvous=(--nnodes="$nodes" --rdzv-backend=c10d --rdzv-endpoint="$address:$port" --rdzv-id="${RUN_ID:-mixdet}"
        --max-restarts="$restarts")
fi
# PyTorch has one store for all attempts, in which processes find the addresses of those that were lost
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# torchrun passes on Slurm's signal as well; it would stop heeding nohup, which has SIGHUP ignored
hangup=SIGHUP,
[ -z "$(trap -p HUP)" ] || hangup=
export PET_SIGNALS_TO_HANDLE="${PET_SIGNALS_TO_HANDLE:-${hangup}SIGTERM,SIGINT,SIGQUIT,SIGUSR1}"
exec python -m torch.distributed.run "${rendezvous[@]}" --nproc_per_node="$processes" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
