#!/usr/bin/env bash
# Train with several processes on this machine: launch/local.sh N --config=F --workdir=D [...]
#
# Each process sees the devices that JAX gives it; on CPU, add XLA_FLAGS to give each some:
#   XLA_FLAGS=--xla_force_host_platform_device_count=2 launch/local.sh 2 --config=... --workdir=...
set -euo pipefail

if [[ $# -lt 2 || ! $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/local.sh PROCESSES --config=FILE --workdir=DIR [...]" >&2
  exit 2
fi
count=$1
shift

port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export JAX_COORDINATOR_ADDRESS=127.0.0.1:$port JAX_NUM_PROCESSES=$count

pids=()
for ((index = 0; index < count; index++)); do
  JAX_PROCESS_ID=$index python -m jaxcxr.main "$@" &
  pids+=($!)
done
trap 'kill "${pids[@]}" 2>/dev/null || true' INT TERM

status=0
for pid in "${pids[@]}"; do
  wait "$pid" || status=$?
done
exit "$status"
