#!/usr/bin/env bash
# Train on a Cloud TPU slice: ask for it, wait, run on all its workers, go on after preemption, and
# give it back.
#
#   launch/tpu_queued_resource.sh [--dry-run] [--keep] --config=FILE[:ARG] --workdir=gs://BUCKET/DIR [...]
#
#   ZONE=us-west4-a TYPE=v5litepod-16 VERSION=v2-alpha-tpuv5-lite SPOT=1 launch/tpu_queued_resource.sh \
#     --config=configs/demo.py --workdir=gs://my-bucket/demo
#
# Settings: NAME (jaxcxr), ZONE, TYPE and VERSION as `gcloud compute tpus` knows them, PROJECT
# (gcloud's default), SPOT=1 for preemptible capacity, DATA_BUCKET (mounted read-only at /mnt/data, to
# be given as --config.data.dir=/mnt/data), RETRIES (3) of a run that failed on a living slice.
# The workdir lies in a bucket because a preempted slice loses its disks. --keep leaves the slice.
# --dry-run prints the commands. TPU7x is not served by this API: use gke_jobset.yaml.
# Exit code: that of the run; 2 is a mistake in the command or config and is never retried; 75, stopped
# after saving, is started again.
set -euo pipefail

dry='' keep=''
while [[ ${1:-} == --dry-run || ${1:-} == --keep ]]; do
  if [[ $1 == --dry-run ]]; then dry=1; else keep=1; fi
  shift
done
if [[ $# -lt 2 || " $* " != *" --workdir=gs://"* ]]; then
  echo "usage: launch/tpu_queued_resource.sh [--dry-run] [--keep] --config=FILE --workdir=gs://... [...]" >&2
  exit 2
fi

name=${NAME:-jaxcxr} zone=${ZONE:-us-west4-a} type=${TYPE:-v5litepod-16}
version=${VERSION:-v2-alpha-tpuv5-lite} retries=${RETRIES:-3}
where=(--zone="$zone")
if [[ ${PROJECT:-} ]]; then where+=(--project="$PROJECT"); fi
capacity=()
if [[ ${SPOT:-} ]]; then capacity=(--spot); fi
root=$(cd "$(dirname "$0")/.." && pwd)
log=$(mktemp)

run() { # print a command in a dry run, do it otherwise
  if [[ $dry ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

state() {
  gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)' \
    2>/dev/null || echo ABSENT
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

clean_up() {
  rm -f "$log" "$log.tar.gz"
  if [[ ! $keep ]]; then delete || echo "delete the queued resource $name yourself" >&2; fi
}

on_all() {
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="$1"
}

acquire() { # until the slice is there; a dead request is replaced
  local now=ABSENT
  if [[ ! $dry ]]; then now=$(state); fi
  while [[ $now != ACTIVE ]]; do
    case $now in
      ABSENT)
        run gcloud compute tpus queued-resources create "$name" "${where[@]}" --node-id="$name" \
          --accelerator-type="$type" --runtime-version="$version" ${capacity[@]+"${capacity[@]}"}
        ;;
      FAILED | SUSPENDED) delete ;;
      *) echo "tpu: $name is $now" && sleep 30 ;;
    esac
    if [[ $dry ]]; then
      echo "# wait until ACTIVE: gcloud compute tpus queued-resources describe $name"
      return
    fi
    now=$(state)
  done
}

install() {
  run tar -C "$root" -czf "$log.tar.gz" pyproject.toml README.md LICENSE jaxcxr configs
  run gcloud compute tpus tpu-vm scp "$log.tar.gz" "$name:jaxcxr.tar.gz" "${where[@]}" --worker=all
  on_all "mkdir -p jaxcxr && tar -xzf jaxcxr.tar.gz -C jaxcxr && pip install -q --user uv &&
    ~/.local/bin/uv venv -q --clear --python 3.11 venv && VIRTUAL_ENV=~/venv ~/.local/bin/uv pip install -q -e ./jaxcxr 'jax[tpu]' gcsfs"
  if [[ ${DATA_BUCKET:-} ]]; then
    on_all "sudo mkdir -p /mnt/data && mountpoint -q /mnt/data || sudo gcsfuse -o ro,allow_other --implicit-dirs $DATA_BUCKET /mnt/data"
  fi
}

trap clean_up EXIT
trap 'exit 143' INT TERM
printf -v arguments '%q ' "$@"
failures=0
while true; do
  acquire
  # A slice that is taken away here fails these commands too; the state decides what that means.
  code=0
  if install; then
    # ssh to many workers does not pass on their exit codes, so that they are printed.
    on_all "cd jaxcxr && ~/venv/bin/python -m jaxcxr.main $arguments; echo jaxcxr-exit-code \$?" |
      tee "$log" || code=1
  else
    code=1
  fi
  if [[ $dry ]]; then exit 0; fi
  worst=$(awk '$1 == "jaxcxr-exit-code" { seen = 1
      if ($2 == 2) two = 1; else if ($2 == 75) stopped = 1; else if ($2 != 0) one = 1 }
    END { print two ? 2 : (one || !seen) ? 1 : stopped ? 75 : 0 }' "$log")
  if ((worst != 0)); then code=$worst; fi
  now=$(state)
  if ((code == 2)); then
    exit 2
  elif [[ $now != ACTIVE ]]; then
    echo "tpu: the slice is $now (preempted); it is asked for again, the run goes on from its checkpoint"
  elif ((code == 0)); then
    exit 0
  elif ((code == 75)); then
    echo "tpu: the run was asked to stop, saved, and is not finished; it goes on"
  elif ((++failures > retries)); then
    exit 1
  fi
done
