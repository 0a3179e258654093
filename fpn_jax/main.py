"""The command line: `python -m fpn_jax.main --config=configs/fpn.py --workdir=DIR`.

Exit codes: 0 done, or stopped and resumable; 1 a file of predict or check is bad, or
the training failed; 2 the command line, the config, the data or a path cannot be used;
130 interrupted where there was nothing to save.
"""

import sys

from absl import app, flags
from ml_collections import config_flags

from fpn_jax import config as configs
from fpn_jax import runtime
from fpn_jax.errors import InputError

MODES = {
    "train": "Trains, or goes on where the run of the workdir stands.",
    "check": "Names every file of the data that does not decode whole.",
    "evaluate": "Counts how often a trained model is right on a split.",
    "predict": "Writes the classes of images to a .csv or .json file.",
    "export": "Writes a trained model to one file that runs with JAX alone.",
    "summary": "Shows the blocks of a model: outputs, parameters, FLOPs, memory.",
    "list": "Shows every name that a config or this command line understands.",
}
"""Mode → what it does."""
TAKES = {
    "train": {"config", "workdir"},
    "check": {"config"},
    "evaluate": {"workdir", "checkpoint", "split", "data_root"},
    "predict": {"workdir", "checkpoint", "input", "output"},
    "export": {"workdir", "checkpoint", "output"},
    "summary": {"config"},
    "list": set(),
}
"""Mode → flags that it takes."""
NEEDS = {
    "train": {"config", "workdir"},
    "check": {"config"},
    "evaluate": {"workdir"},
    "predict": {"workdir", "input"},
    "export": {"workdir", "output"},
    "summary": {"config"},
    "list": set(),
}
"""Mode → flags that it cannot do without."""

PARTS = ("backbone", "neck", "head")
"""Dicts of a config that hold a constructor's arguments."""
ADDED: set[str] = set()
"""Dotted keys of parts that the command line set and the config's file leaves out."""

config_flags.DEFINE_config_file("config", None, "Config file, as configs/fpn.py:smoke.")
flags.DEFINE_enum("mode", "train", list(MODES), "What to do.")
flags.DEFINE_string("workdir", None, "Folder of the run.")
flags.DEFINE_string("split", "validate", "train, validate or test.")
flags.DEFINE_string("data_root", None, "Other data than the run was trained on.")
flags.DEFINE_string("checkpoint", "best", "best, latest, or a step.")
flags.DEFINE_multi_string("input", None, "A file, folder or glob; repeatable.")
flags.DEFINE_string("output", None, "predict: .csv or .json; export: .stablehlo.")
flags.DEFINE_bool("distributed", False, "Find the other processes: TPU, SLURM, MPI.")
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, to start by hand.")
flags.DEFINE_integer("num_processes", None, "With --coordinator: how many.")
flags.DEFINE_integer("process_id", None, "With --coordinator: which one.")
FLAGS = flags.FLAGS


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; every mistake in them is one or two lines and exit code 2."""
    file = configs.file_of(argv)
    if file is not None:
        # Config files import each other from the folder above theirs.
        sys.path.append(str(file.absolute().parent.parent))
    argv, added = configs.split_parts(argv, PARTS)
    # config_flags looks for the config's keys there, and not in what it is given.
    sys.argv = argv
    try:
        rest = FLAGS(argv)
        if FLAGS.config is not None:
            # A file that cannot be loaded raises only where it is looked at.
            FLAGS.config.to_dict()
        for key, value in added.items():
            part, name = key.split(".", 1)
            with FLAGS.config[part].unlocked():
                FLAGS.config[part][name] = value
        ADDED.update(added)
        return rest
    except Exception as error:
        print(f"fpn_jax: {configs.explain(error, argv)}", file=sys.stderr)
        raise SystemExit(2) from None


def _check_flags(argv: list[str]) -> None:
    if len(argv) > 1:
        raise InputError(f"argument {argv[1]!r} is not understood; see --help")
    for name in sorted(set().union(*TAKES.values())):
        given = getattr(FLAGS, name) is not None and FLAGS[name].present
        if given and name not in TAKES[FLAGS.mode]:
            modes = [mode for mode, takes in TAKES.items() if name in takes]
            raise InputError(
                f"--mode={FLAGS.mode} takes no --{name}; it is for {', '.join(modes)}"
            )
        if name in NEEDS[FLAGS.mode] and not given:
            raise InputError(f"--mode={FLAGS.mode} needs --{name}")


def _check_processes() -> None:
    by_hand = [FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id]
    if any(value is not None for value in by_hand):
        if FLAGS.distributed or None in by_hand:
            raise InputError(
                "--coordinator, --num_processes and --process_id go together, and "
                "without --distributed, which finds them"
            )
    elif not FLAGS.distributed:
        return
    if FLAGS.mode not in ("train", "evaluate"):
        raise InputError(f"--mode={FLAGS.mode} runs in one process")


def _work(argv: list[str], coordinator: str | None) -> int:
    _check_flags(argv)
    _check_processes()
    runtime.start(coordinator, FLAGS.num_processes, FLAGS.process_id)
    # JAX is imported here, after the environment that it reads is set.
    from fpn_jax import experiment, export, predict, run, summary, trained

    if FLAGS.mode == "list":
        return summary.print_choices(MODES)
    if "config" in TAKES[FLAGS.mode]:
        overridden = config_flags.get_override_values(FLAGS["config"])
        config = experiment.resolve(
            FLAGS.config, frozenset({*overridden, *ADDED}), FLAGS.workdir
        )
        if FLAGS.mode == "check":
            return run.check(config)
        if FLAGS.mode == "summary":
            return summary.run(config)
        return run.train(config, FLAGS.workdir)
    model = trained.load(FLAGS.workdir, FLAGS.checkpoint)
    if FLAGS.mode == "evaluate":
        return run.evaluate(model, FLAGS.split, FLAGS.data_root)
    if FLAGS.mode == "predict":
        return predict.run(model.classifier(), FLAGS.input, FLAGS.output)
    return export.run(model.classifier(), FLAGS.output)


def main(argv: list[str]) -> int:
    """Runs one mode and returns the exit code."""
    coordinator = "auto" if FLAGS.distributed else FLAGS.coordinator
    return runtime.guard(
        lambda: _work(argv, coordinator), several_processes=coordinator is not None
    )


if __name__ == "__main__":
    runtime.use_large_pages()
    app.run(main, flags_parser=parse)
