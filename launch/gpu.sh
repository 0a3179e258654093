#!/usr/bin/env bash
# Runs one process, which uses every GPU of this machine.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=run_or_print.sh
source "$(dirname "${BASH_SOURCE[0]}")/run_or_print.sh"

usage() {
  cat <<'USAGE'
launch/gpu.sh --config=FILE --workdir=DIR [more flags]

Runs one process, which uses every GPU of this machine. CUDA_VISIBLE_DEVICES chooses
some of them.

  DRY_RUN=1  print the commands

Example: launch/gpu.sh --config=configs/fpn.py --workdir=runs/first
USAGE
}

case "${1:---no-arguments}" in
  --help) usage; exit 0 ;;
  --no-arguments) usage >&2; exit 2 ;;
esac

run_or_print python -c 'import jax; jax.devices("gpu")' 2>/dev/null ||
  refuse 'JAX finds no GPU; install a CUDA build of JAX: pip install -e ".[cuda13]"'
# exec: a signal to this script reaches the training.
run_or_print exec python -m fpn_jax.main "$@"
