"""The command line: `python -m fpn_jax.main --config=configs/fpn.py --workdir=DIR`.

Exit codes: 0 done, or stopped and resumable; 1 a file of predict or check is bad, or
the training failed; 2 the command line, the config, the data or a path cannot be used;
130 interrupted where there was nothing to save.
"""

import sys

from absl import app, flags

from fpn_jax import command_line, modes, runtime
from fpn_jax.errors import InputError

flags.DEFINE_string(
    "config",
    None,
    "Config file, such as configs/fpn.py or configs/fpn.py:smoke. Any key of it can be "
    "set: --config.KEY=VALUE. For train, check and summary.",
)
flags.DEFINE_enum("mode", "train", list(modes.MODES), "What to do; see --mode=list.")
flags.DEFINE_string(
    "workdir", None, "Folder of the run: written by train, read by all."
)
flags.DEFINE_string(
    "split",
    "validate",
    "Split that evaluate and report use: train, validate or test.",
)
flags.DEFINE_string(
    "data_root",
    None,
    "Folder of other data than the run was trained on, for evaluate and report.",
)
flags.DEFINE_string(
    "checkpoint",
    "best",
    "Checkpoint for evaluate, predict, export and report: best, latest, or a step.",
)
flags.DEFINE_multi_string(
    "input", None, "Image file, folder or glob for predict; may be repeated."
)
flags.DEFINE_string(
    "output",
    None,
    "File that predict (.csv or .json) or export (.stablehlo) writes; for predict also "
    "a folder, for drawn pictures. Without it, predict prints a CSV table.",
)
flags.DEFINE_bool(
    "distributed", False, "Find the other processes from a TPU pod, SLURM or MPI."
)
flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, to start processes by hand."
)
flags.DEFINE_integer("num_processes", None, "Number of processes, with --coordinator.")
flags.DEFINE_integer("process_id", None, "Number of this process, with --coordinator.")
FLAGS = flags.FLAGS


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; a mistake in one is one or two lines and exit code 2.

    Returns:
      The words that are left: the program, unknown ones, and `--config.KEY=VALUE`.
    """
    rest, config_words = command_line.split(argv)
    try:
        return FLAGS(rest) + config_words
    except flags.Error as error:
        print(f"fpn_jax: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _check_flags(mode) -> None:
    for name in sorted(vars(modes.Options()).keys() - {"given"} | {"config"}):
        given = FLAGS[name].present and getattr(FLAGS, name) is not None
        if given and name not in mode.TAKES:
            takers = [m for m in modes.MODES if name in modes.load(m).TAKES]
            raise InputError(
                f"--mode={FLAGS.mode} takes no --{name}; it is for {', '.join(takers)}"
            )
        if name in mode.NEEDS and not given:
            raise InputError(f"--mode={FLAGS.mode} needs --{name}")


def _check_processes() -> None:
    by_hand = [FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id]
    if any(value is not None for value in by_hand):
        if FLAGS.distributed or None in by_hand:
            raise InputError(
                "--coordinator, --num_processes and --process_id must be given "
                "together, and without --distributed"
            )
    elif not FLAGS.distributed:
        return
    if FLAGS.mode not in modes.SEVERAL_PROCESSES:
        raise InputError(f"--mode={FLAGS.mode} runs in one process")


def _read_config(config_words: list[str]) -> command_line.Given | None:
    if FLAGS.config is not None:
        return command_line.read(FLAGS.config, config_words)
    if config_words:
        raise InputError(f"{config_words[0]} needs --config=FILE, which it changes")
    return None


def _work(argv: list[str], coordinator: str | None) -> int:
    unknown = [word for word in argv[1:] if not word.startswith("--config.")]
    if unknown:
        raise InputError(f"unknown argument {unknown[0]!r}; see --help")
    _check_processes()
    # JAX reads the environment when it is imported, which the modes do.
    runtime.set_environment()
    mode = modes.load(FLAGS.mode)
    _check_flags(mode)
    options = modes.Options(
        given=_read_config(argv[1:]),
        workdir=FLAGS.workdir,
        split=FLAGS.split,
        data_root=FLAGS.data_root,
        checkpoint=FLAGS.checkpoint,
        input=tuple(FLAGS.input or ()),
        output=FLAGS.output,
    )
    runtime.join(coordinator, FLAGS.num_processes, FLAGS.process_id)
    return mode.run(options)


def main(argv: list[str]) -> int:
    """Runs one mode and returns the exit code."""
    coordinator = "auto" if FLAGS.distributed else FLAGS.coordinator
    return runtime.guard(
        lambda: _work(argv, coordinator), several_processes=coordinator is not None
    )


if __name__ == "__main__":
    runtime.use_large_pages()
    app.run(main, flags_parser=parse)
