# shellcheck shell=bash
# Functions for the other scripts: run a command, or only print it if DRY_RUN=1.

# refuse SENTENCE: prints a mistake of the user and exits with code 2.
refuse() {
  printf 'launch: %s\n' "$1" >&2
  exit 2
}

# need NAME...: refuses if a variable is unset or empty.
need() {
  local name
  for name; do
    [[ -n "${!name:-}" ]] || refuse "set the variable $name"
  done
}

is_dry_run() {
  [[ "${DRY_RUN:-}" == 1 ]]
}

# quoted WORD...: prints the words on one line, quoted for any POSIX shell.
# printf %q is not used: its $'...' needs bash, and its output depends on the version.
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

# run_or_print COMMAND...: runs the command, or prints it in a dry run.
run_or_print() {
  if is_dry_run; then
    quoted "$@"
  else
    "$@"
  fi
}

# answer_or_name NAME COMMAND...: prints the command's output, or NAME in a dry run.
answer_or_name() {
  if is_dry_run; then
    printf '%s\n' "$1"
  else
    "${@:2}"
  fi
}
