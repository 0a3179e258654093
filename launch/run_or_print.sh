# shellcheck shell=bash
# Sourced by the scripts beside it: run a command, or under DRY_RUN=1 only print it.

# refuse SENTENCE: what the user gave cannot be used.
refuse() {
  printf 'launch: %s\n' "$1" >&2
  exit 2
}

# need NAME...: refuses when a variable is unset or empty.
need() {
  local name
  for name; do
    [[ -n "${!name:-}" ]] || refuse "set $name"
  done
}

is_dry_run() {
  [[ "${DRY_RUN:-}" == 1 ]]
}

# quoted WORD...: the words on one line, such that any POSIX shell reads them back.
# Not printf %q: its $'...' is bash's alone, and its output changes between versions.
quoted() {
  local word line='' apostrophe="'" escaped="'\\''"
  for word; do
    if [[ ! "$word" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
      word="'${word//$apostrophe/$escaped}'"
    fi
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

run_or_print() {
  if is_dry_run; then
    quoted "$@"
  else
    "$@"
  fi
}

# answer_or_name NAME COMMAND...: the command's output, or in a dry run the NAME.
answer_or_name() {
  if is_dry_run; then
    printf '%s\n' "$1"
  else
    "${@:2}"
  fi
}
