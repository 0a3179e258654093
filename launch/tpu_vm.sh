#!/usr/bin/env bash
# Makes, uses and deletes a Google Cloud TPU VM; every command reaches all its workers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR source=run_or_print.sh
source launch/run_or_print.sh

usage() {
  cat <<'USAGE'
launch/tpu_vm.sh COMMAND

  create         make the TPU VM
  setup          copy the last commit of this repository to every worker and install it
  run -- FLAGS   start the training on every worker, in the background
  status         the state of the TPU VM, and whether every worker trains
  logs           the end of the log of worker 0; FOLLOW=1 follows it, WORKER=all or =N
  stop           ask the training to save and end
  delete         delete the TPU VM; asks first, or takes --yes

  TPU_NAME       the name of the TPU VM
  ZONE           such as us-central2-b
  TPU_TYPE       accelerator type (default v4-8)
  TPU_VERSION    its software (default tpu-ubuntu2204-base, right up to v4)
  PROJECT        the project, where it is not gcloud's own
  SPOT=1         create a spot VM: cheaper, and may be taken away
  DRY_RUN=1      print the commands

Example: launch/tpu_vm.sh run -- --config=configs/fpn.py --workdir=/mnt/runs/first
On several workers the workdir and the data lie on a disk that every worker mounts.
USAGE
}

# on WORKER COMMAND [ARGUMENT...]: runs one line of shell on a worker, or on all.
on() {
  run_or_print gcloud compute tpus tpu-vm ssh "$TPU_NAME" "${place[@]}" \
    "--worker=$1" "--command=$2" "${@:3}"
}

create() {
  local spot=()
  if [[ "${SPOT:-}" == 1 ]]; then
    spot=(--spot)
  fi
  run_or_print gcloud compute tpus tpu-vm create "$TPU_NAME" "${place[@]}" \
    "--accelerator-type=${TPU_TYPE:-v4-8}" \
    "--version=${TPU_VERSION:-tpu-ubuntu2204-base}" ${spot[@]+"${spot[@]}"}
}

setup() {
  local archive
  archive=$(answer_or_name ARCHIVE mktemp)
  run_or_print git archive --format=tar.gz "--output=$archive" HEAD
  run_or_print gcloud compute tpus tpu-vm scp "$archive" \
    "$TPU_NAME:fpn_jax.tar.gz" "${place[@]}" --worker=all
  run_or_print rm "$archive"
  # Modules of an earlier commit must not survive; the environment and runs/ do.
  on all "mkdir -p fpn_jax && rm -rf fpn_jax/fpn_jax fpn_jax/configs && \
tar -xzf fpn_jax.tar.gz -C fpn_jax"
  # Ubuntu 22.04 has Python 3.10. A fresh VM may still hold apt's lock for its updates.
  local apt='sudo DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600'
  on all "command -v python3.11 >/dev/null || \
{ $apt update && $apt install -y python3.11 python3.11-venv; }"
  on all 'cd fpn_jax && python3.11 -m venv .venv && .venv/bin/pip install -e ".[tpu]"'
}

# True on a worker whose training lives. The pattern guards against a process number
# that another program was given since.
alive='pgrep -F fpn_jax.pid -f fpn_jax.main >/dev/null 2>&1'
# shellcheck disable=SC2016  # The worker is to expand it.
not_alive='echo "$(hostname) does not train"'

run() {
  local training
  training=$(quoted .venv/bin/python -m fpn_jax.main --distributed "$@")
  # All workers are asked before any starts: a part of them would wait for ever.
  on all "if $alive; then echo \"launch: \$(hostname) already trains\" >&2; exit 1; fi"
  on all "cd fpn_jax && \
{ nohup $training >../fpn_jax.log 2>&1 </dev/null & echo \$! >../fpn_jax.pid; }"
}

status() {
  run_or_print gcloud compute tpus tpu-vm describe "$TPU_NAME" "${place[@]}" \
    '--format=value(state)'
  on all "if $alive; then echo \"\$(hostname) trains\"; else $not_alive; fi"
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
    [[ -t 0 ]] || refuse "no terminal to ask on; delete --yes deletes $TPU_NAME"
    read -r -p "Delete the TPU VM $TPU_NAME in $ZONE and its disk? [y/N] " answer
    [[ "$answer" == [yY] ]] || refuse "$TPU_NAME is kept"
  fi
  run_or_print gcloud compute tpus tpu-vm delete "$TPU_NAME" "${place[@]}" --quiet
}

commands='create, setup, run, status, logs, stop, delete'
case "${1:---no-arguments}" in
  --help) usage; exit 0 ;;
  --no-arguments) usage >&2; exit 2 ;;
  run)
    [[ "${2:-}" == -- && $# -gt 2 ]] ||
      refuse "run takes the flags after a --: run -- --config=FILE --workdir=DIR"
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
place=("--zone=$ZONE")
if [[ -n "${PROJECT:-}" ]]; then
  place+=("--project=$PROJECT")
fi
"$1" ${arguments[@]+"${arguments[@]}"}
