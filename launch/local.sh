#!/usr/bin/env bash
# Simulates a run on several hosts: several processes with simulated CPU devices.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=run_or_print.sh
source "$(dirname "${BASH_SOURCE[0]}")/run_or_print.sh"

usage() {
  cat <<'USAGE'
launch/local.sh PROCESSES DEVICES -- --config=FILE --workdir=DIR [more flags]

Starts PROCESSES processes with DEVICES simulated CPU devices each. Process 0 writes to
this terminal, the others to log files. Ctrl-C asks every process to save and end; a
second Ctrl-C kills them. If one process fails, the others are stopped.

  DRY_RUN=1  print the commands; PORT is printed instead of a free port
  GRACE_S    seconds until the other processes are killed after a failure (default 10)

Example: launch/local.sh 2 4 -- --config=configs/fpn.py --workdir=runs/simulated
USAGE
}

case "${1:---no-arguments}" in
  --help) usage; exit 0 ;;
  --no-arguments) usage >&2; exit 2 ;;
esac
[[ "$1" =~ ^[1-9][0-9]*$ ]] ||
  refuse "PROCESSES is '$1'; give a number, 1 or more"
[[ "${2:-}" =~ ^[1-9][0-9]*$ ]] ||
  refuse "DEVICES is '${2:-}'; give a number, 1 or more"
[[ "${3:-}" == -- && $# -gt 3 ]] ||
  refuse "give -- and the flags of the run after DEVICES"
processes=$1
devices=$2
shift 3

grace_s=${GRACE_S:-10}
[[ "$grace_s" =~ ^[0-9]+$ ]] ||
  refuse "GRACE_S is '$grace_s'; give a whole number of seconds"

# With fewer threads, the steps of simulated devices deadlock.
threads=$((2 * devices > 16 ? 2 * devices : 16))
port=$(answer_or_name PORT python -c \
  'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')

logs=''
if ((processes > 1)) && ! is_dry_run; then
  logs=$(mktemp -d)
  printf 'launch: logs of the processes from 1 up: %s\n' "$logs" >&2
fi

pids=()
is_stopping=false
code=0

signal_running() {
  local pid
  for pid in $(jobs -pr); do
    kill "-$1" "$pid" 2>/dev/null || true
  done
}

ask_to_stop() {
  if "$is_stopping"; then
    signal_running KILL
  else
    is_stopping=true
    signal_running TERM
  fi
}

end_all_after_grace() {
  deadline=$((SECONDS + grace_s))
  if ! "$is_stopping"; then
    is_stopping=true
    signal_running TERM
  fi
}

print_logs() {
  local log
  for log in "$logs"/*.log; do
    printf '\nlaunch: the end of %s\n' "$log" >&2
    tail -n 40 "$log" >&2
  done
}

# While processes start, signals are delayed until all processes exist.
is_stop_asked=false
trap 'is_stop_asked=true' INT TERM HUP
trap 'signal_running KILL' EXIT

for ((rank = 0; rank < processes; rank++)); do
  command=(env JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=$devices" "NPROC=$threads"
    python -m fpn_jax.main "$@" "--coordinator=127.0.0.1:$port"
    "--num_processes=$processes" "--process_id=$rank")
  if is_dry_run; then
    quoted "${command[@]}"
    continue
  elif ((rank == 0)); then
    "${command[@]}" &
  else
    "${command[@]}" >"$logs/process_$rank.log" 2>&1 &
  fi
  pids+=($!)
done

trap ask_to_stop INT TERM HUP
if "$is_stop_asked"; then
  ask_to_stop
fi

deadline=''
remaining=${#pids[@]}
while ((remaining > 0)); do
  for rank in "${!pids[@]}"; do
    # If the process has ended, `wait` returns its exit code at once.
    kill -0 "${pids[rank]}" 2>/dev/null && continue
    wait "${pids[rank]}" && rank_code=0 || rank_code=$?
    unset "pids[rank]"
    remaining=$((remaining - 1))
    if ((rank_code != 0 && code == 0)); then
      code=$rank_code
      printf 'launch: process %d failed with code %d\n' "$rank" "$code" >&2
      end_all_after_grace
    fi
  done
  if [[ -n "$deadline" ]] && ((SECONDS > deadline)); then
    signal_running KILL
  fi
  ((remaining == 0)) || sleep 0.1 || true
done
if [[ -n "$logs" ]] && ((code != 0)); then
  print_logs
fi
exit "$code"
