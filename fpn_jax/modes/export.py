"""`--mode=export`: a trained model as a file for other programs."""

from pathlib import Path

from fpn_jax.errors import InputError
from fpn_jax.exporters import EXPORTERS
from fpn_jax.modes import Options
from fpn_jax.trained import load

SUMMARY = "Writes a trained model to one file that runs with JAX alone."
TAKES = frozenset({"workdir", "checkpoint", "output"})
NEEDS = frozenset({"workdir", "output"})


def run(options: Options) -> int:
    """Writes the exported model and its description; returns the exit code.

    Raises:
      InputError: The output cannot be written.
      RunError: The reloaded model gives other outputs than the model.
    """
    output = Path(options.output)
    if output.suffix not in EXPORTERS:
        raise InputError(f"--output={output} must end in {' or '.join(EXPORTERS)}")
    if not output.absolute().parent.is_dir():
        raise InputError(f"--output={output}: its folder does not exist")
    predictor = load(options.workdir, options.checkpoint).predictor()
    print(EXPORTERS[output.suffix](predictor, output))
    return 0
