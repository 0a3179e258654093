"""The command line: `python -m fpn_jax.main --config=configs/fpn.py --workdir=DIR`.

Exit codes:

- 0: The mode finished, or the training stopped after saving a checkpoint.
- 1: The mode predict or check found a bad file, or the training failed.
- 2: The command line, the config, the data or a path cannot be used.
- 130: The program was interrupted when there was nothing to save.
"""

import sys

from absl import app, flags

from fpn_jax import command_line, modes, paths, runtime
from fpn_jax.errors import InputError

flags.DEFINE_string(
    "config",
    None,
    "Config file, such as configs/fpn.py, or configs/fpn.py:smoke for a variant of it. "
    "--config.KEY=VALUE sets any of its keys. The modes train, check and summary need "
    "it.",
)
flags.DEFINE_enum(
    "mode",
    "train",
    list(modes.MODES),
    "What to do. --mode=list describes every mode.",
)
flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run. The mode train writes it; evaluate, predict, export and report "
    "read it. All of these modes need it.",
)
flags.DEFINE_string(
    "split",
    "validate",
    "Split for evaluate and report: train, validate or test.",
)
flags.DEFINE_string(
    "data_root",
    None,
    "Folder of the data for evaluate and report. The default is the folder that the "
    "run was trained on.",
)
flags.DEFINE_string(
    "checkpoint",
    "best",
    "Checkpoint for evaluate, predict, export and report: best, latest, or the number "
    "of a step.",
)
flags.DEFINE_multi_string(
    "input",
    None,
    "Image file, folder or glob for predict, which needs it.",
)
flags.DEFINE_string(
    "output",
    None,
    "Output of predict and export. predict writes a .csv or .json file, or pictures "
    "into a folder; by default it prints a CSV table. export needs the name of a "
    ".stablehlo file.",
)
flags.DEFINE_bool(
    "distributed",
    False,
    "Whether this process is one of several that a TPU pod, SLURM or MPI started.",
)
flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of process 0, to start several processes without a launcher; needs "
    "--num_processes and --process_id.",
)
flags.DEFINE_integer("num_processes", None, "Number of processes; needs --coordinator.")
flags.DEFINE_integer(
    "process_id",
    None,
    "Number of this process, from 0 to --num_processes - 1; needs --coordinator.",
)
FLAGS = flags.FLAGS


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; prints a mistake in one or two lines and exits with code 2.

    Args:
      argv: The command line, program included.

    Returns:
      The remaining words: the program, unknown words, and `--config.KEY=VALUE`.

    Raises:
      SystemExit: A flag is unknown, or its value is invalid.
    """
    rest, config_words = command_line.split(argv)
    try:
        return FLAGS(rest) + config_words
    except flags.Error as error:
        print(f"fpn_jax: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _check_flags(mode) -> None:
    for name in sorted(vars(modes.Options()).keys() - {"given"} | {"config"}):
        flag = FLAGS[name]
        given = flag.present and flag.value is not None
        if flag.present > 1 and not isinstance(flag, flags.MultiFlag):
            raise InputError(f"--{name} is given {flag.present} times; give it once")
        if given and flag.value == "":
            raise InputError(f"--{name} is empty; give a value, or leave it out")
        if given and name not in mode.TAKES:
            takers = [m for m in modes.MODES if name in modes.load(m).TAKES]
            raise InputError(
                f"--mode={FLAGS.mode} does not take --{name}; the modes that take it "
                f"are: {', '.join(takers)}"
            )
        if name in mode.NEEDS and not given:
            raise InputError(f"--mode={FLAGS.mode} needs --{name}")


def _check_processes() -> None:
    manual = [FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id]
    if any(value is not None for value in manual):
        if FLAGS.distributed or None in manual:
            raise InputError(
                "--coordinator, --num_processes and --process_id must be given "
                "together, and without --distributed"
            )
    elif not FLAGS.distributed:
        return
    if FLAGS.mode not in modes.SEVERAL_PROCESSES:
        raise InputError(
            f"--mode={FLAGS.mode} runs in one process: remove --distributed and "
            "--coordinator"
        )


def _read_config(config_words: list[str]) -> command_line.Given | None:
    if FLAGS.config is not None:
        return command_line.read(paths.expanded(FLAGS.config), config_words)
    if config_words:
        raise InputError(
            f"{config_words[0]} changes a config file: give that file with "
            "--config=FILE"
        )
    return None


def _path(path: str | None) -> str | None:
    return None if path is None else paths.expanded(path)


def _run_mode(argv: list[str], coordinator: str | None) -> int:
    unknown = [word for word in argv[1:] if not word.startswith("--config.")]
    if unknown:
        raise InputError(f"unknown argument {unknown[0]!r}; see --help")
    _check_processes()
    # The modes import JAX, which reads the environment when it is imported.
    runtime.set_environment()
    mode = modes.load(FLAGS.mode)
    _check_flags(mode)
    options = modes.Options(
        given=_read_config(argv[1:]),
        workdir=_path(FLAGS.workdir),
        split=FLAGS.split,
        data_root=_path(FLAGS.data_root),
        checkpoint=FLAGS.checkpoint,
        input=tuple(map(paths.expanded, FLAGS.input or ())),
        output=_path(FLAGS.output),
    )
    runtime.join(coordinator, FLAGS.num_processes, FLAGS.process_id)
    return mode.run(options)


def main(argv: list[str]) -> int:
    """Runs one mode and returns the exit code.

    Args:
      argv: The remaining words of `parse`.
    """
    # A terminal may lack characters of file names and classes.
    sys.stdout.reconfigure(errors="backslashreplace")
    coordinator = "auto" if FLAGS.distributed else FLAGS.coordinator
    return runtime.guard(
        lambda: _run_mode(argv, coordinator), several_processes=coordinator is not None
    )


if __name__ == "__main__":
    runtime.use_large_pages()
    app.run(main, flags_parser=parse)
