#!/usr/bin/env bash
# Train with several processes on this machine, as one run.
#
#   launch/local.sh [--dry-run] PROCESSES --config=FILE[:ARG] --workdir=DIR [...]
#
#   launch/local.sh 2 --config=configs/demo.py --workdir=runs/demo
#   XLA_FLAGS=--xla_force_host_platform_device_count=2 launch/local.sh 2 ...   2 CPU devices each
#
# NVIDIA GPUs are shared out evenly, those of CUDA_VISIBLE_DEVICES alone where it is set, and none with
# JAX_PLATFORMS=cpu. SIGTERM or Ctrl-C to this script goes to every process: the run
# saves and stops, and the same command goes on. --dry-run prints the commands and starts nothing.
# Exit code: 0 done, 75 stopped after saving (start it again), 2 a mistake in the command or config, 1
# the run failed.
set -euo pipefail

dry=
if [[ ${1:-} == --dry-run ]]; then
  dry=1
  shift
fi
if [[ $# -lt 2 || ! $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/local.sh [--dry-run] PROCESSES --config=FILE --workdir=DIR [...]" >&2
  exit 2
fi
count=$1
shift

devices=() # their numbers or UUIDs
if [[ ${JAX_PLATFORMS:-} == cpu ]]; then
  :
elif [[ -v CUDA_VISIBLE_DEVICES ]]; then
  IFS=', ' read -ra devices <<< "$CUDA_VISIBLE_DEVICES"
elif command -v nvidia-smi >/dev/null; then
  found=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
  for ((index = 0; index < found; index++)); do devices+=("$index"); done
fi
gpus=${#devices[@]}
if ((gpus > 0 && gpus % count)); then
  echo "local.sh: $gpus GPUs cannot be shared evenly by $count processes" >&2
  exit 2
fi

port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

pids=()
for ((index = 0; index < count; index++)); do
  settings=("JAX_COORDINATOR_ADDRESS=127.0.0.1:$port" "JAX_NUM_PROCESSES=$count" "JAX_PROCESS_ID=$index")
  if ((gpus > 0)); then
    share=$((gpus / count))
    own=$(IFS=, && echo "${devices[*]:index * share:share}")
    settings+=("CUDA_VISIBLE_DEVICES=$own")
  fi
  if [[ $dry ]]; then
    printf '%q ' env "${settings[@]}" python -m jaxcxr.main "$@"
    echo '&'
  else
    env "${settings[@]}" python -m jaxcxr.main "$@" &
    pids+=($!)
  fi
done
[[ $dry ]] && exit 0
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' INT TERM

status=0
for pid in "${pids[@]}"; do
  code=0
  wait "$pid" || code=$?
  while kill -0 "$pid" 2>/dev/null; do # the signal ended the wait, not the process
    code=0
    wait "$pid" || code=$?
  done
  if ((code != 0 && code != 2 && code != 75)); then code=1; fi
  # A mistake says more than a failure, and a failure more than a stop.
  if ((status == 0 || code == 2 || (code == 1 && status == 75))); then
    status=$code
  fi
done
exit "$status"
