#!/usr/bin/env bash
# Creates, uses and deletes a Google Cloud TPU VM with one or several workers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR source=run_or_print.sh
source launch/run_or_print.sh

usage() {
  cat <<'USAGE'
launch/tpu_vm.sh COMMAND

  create         create the TPU VM
  setup          copy the last commit of this repository to all workers and install it
  run -- FLAGS   start the training on every worker, in the background
  status         print the state of the TPU VM and of the training on every worker
  logs           print the end of the log of worker 0; FOLLOW=1 keeps printing new lines,
                 WORKER=all or WORKER=N chooses other workers
  stop           ask the training to save and end
  delete         delete the TPU VM after a question; --yes answers it

  TPU_NAME       name of the TPU VM
  ZONE           zone, such as us-central2-b
  TPU_TYPE       accelerator type (default v4-8)
  TPU_VERSION    runtime version (default tpu-ubuntu2204-base, for v4 and older)
  PROJECT        project (default: the project that gcloud is configured for)
  SPOT=1         create a spot VM, which is cheaper and may be preempted
  DRY_RUN=1      print the commands

Example: launch/tpu_vm.sh run -- --config=configs/fpn.py --workdir=/mnt/runs/first
With several workers, the workdir and the data must be on a disk that all of them mount.
USAGE
}

# on WORKER COMMAND [ARGUMENT...]: runs a line of shell on a worker, or on all workers.
on() {
  run_or_print gcloud compute tpus tpu-vm ssh "$TPU_NAME" "${location[@]}" \
    "--worker=$1" "--command=$2" "${@:3}"
}

create() {
  local spot=()
  if [[ "${SPOT:-}" == 1 ]]; then
    spot=(--spot)
  fi
  run_or_print gcloud compute tpus tpu-vm create "$TPU_NAME" "${location[@]}" \
    "--accelerator-type=${TPU_TYPE:-v4-8}" \
    "--version=${TPU_VERSION:-tpu-ubuntu2204-base}" ${spot[@]+"${spot[@]}"}
}

setup() {
  local archive
  archive=$(answer_or_name ARCHIVE mktemp)
  run_or_print git archive --format=tar.gz "--output=$archive" HEAD
  run_or_print gcloud compute tpus tpu-vm scp "$archive" \
    "$TPU_NAME:fpn_jax.tar.gz" "${location[@]}" --worker=all
  run_or_print rm "$archive"
  # Remove modules of an earlier commit, but keep the environment and runs/.
  on all "mkdir -p fpn_jax && rm -rf fpn_jax/fpn_jax fpn_jax/configs && \
tar -xzf fpn_jax.tar.gz -C fpn_jax"
  # Ubuntu 22.04 has Python 3.10. A new VM may still have apt's lock for its updates.
  local apt='sudo DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600'
  on all "command -v python3.11 >/dev/null || \
{ $apt update && $apt install -y python3.11 python3.11-venv; }"
  on all 'cd fpn_jax && python3.11 -m venv .venv && .venv/bin/pip install -e ".[tpu]"'
}

# Succeeds on a worker on which the training is running. The pattern excludes another
# program that now has the process number.
alive='pgrep -F fpn_jax.pid -f fpn_jax.main >/dev/null 2>&1'
# shellcheck disable=SC2016  # The worker expands the variable.
not_alive='echo "$(hostname): the training is not running"'

run() {
  local training
  training=$(quoted .venv/bin/python -m fpn_jax.main --distributed "$@")
  # Check all workers before any of them starts, because a part of them would deadlock.
  on all "if $alive; then \
echo \"launch: \$(hostname): the training is already running\" >&2; exit 1; fi"
  on all "cd fpn_jax && \
{ nohup $training >../fpn_jax.log 2>&1 </dev/null & echo \$! >../fpn_jax.pid; }"
}

status() {
  run_or_print gcloud compute tpus tpu-vm describe "$TPU_NAME" "${location[@]}" \
    '--format=value(state)'
  on all "if $alive; then echo \"\$(hostname): the training is running\"; \
else $not_alive; fi"
}

logs() {
  local follow=''
  if [[ "${FOLLOW:-}" == 1 ]]; then
    follow=' -f'
  fi
  on "${WORKER:-0}" "tail -n 50$follow fpn_jax.log"
}

stop() {
  on all "if $alive; then kill -TERM \"\$(cat fpn_jax.pid)\"; else $not_alive; fi"
}

delete() {
  local answer
  if [[ "${1:-}" != --yes ]] && ! is_dry_run; then
    [[ -t 0 ]] || refuse "there is no terminal to ask; delete --yes deletes $TPU_NAME"
    read -r -p "Delete the TPU VM $TPU_NAME in $ZONE and its disk? [y/N] " answer
    [[ "$answer" == [yY] ]] || refuse "$TPU_NAME is not deleted"
  fi
  run_or_print gcloud compute tpus tpu-vm delete "$TPU_NAME" "${location[@]}" --quiet
}

commands='create, setup, run, status, logs, stop, delete'
case "${1:---no-arguments}" in
  --help) usage; exit 0 ;;
  --no-arguments) usage >&2; exit 2 ;;
  run)
    [[ "${2:-}" == -- && $# -gt 2 ]] ||
      refuse "give -- and the flags of the run: run -- --config=FILE --workdir=DIR"
    arguments=("${@:3}")
    ;;
  delete)
    [[ $# -eq 1 || "$*" == "delete --yes" ]] ||
      refuse "delete takes --yes or nothing, not '${*:2}'"
    arguments=("${@:2}")
    ;;
  create | setup | status | logs | stop)
    [[ $# -eq 1 ]] || refuse "$1 takes no arguments, not '${*:2}'"
    arguments=()
    ;;
  *) refuse "command '$1' is unknown; choose one of $commands" ;;
esac
need TPU_NAME ZONE
location=("--zone=$ZONE")
if [[ -n "${PROJECT:-}" ]]; then
  location+=("--project=$PROJECT")
fi
"$1" ${arguments[@]+"${arguments[@]}"}
